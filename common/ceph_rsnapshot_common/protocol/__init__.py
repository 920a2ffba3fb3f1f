"""What crosses between the nodes and onto the disk: records, the manifest, and how RPyC is set up.

May import `content`, `errors`, `names` and `model`. Data come from either node as JSON text and leave as frozen models.
"""
