"""unfade in ComfyUI: load a restorer, restore faces in pictures, adapt a restorer to a folder of photos."""

from comfy_api.latest import ComfyExtension, io

from .nodes import AdaptRestorer, LoadRestorer, RestoreAlignedFaces, RestoreFaces


class UnfadeExtension(ComfyExtension):
    """What ComfyUI asks for nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadRestorer, RestoreFaces, RestoreAlignedFaces, AdaptRestorer]


async def comfy_entrypoint() -> UnfadeExtension:
    """ComfyUI calls this when it loads the folder."""
    return UnfadeExtension()
