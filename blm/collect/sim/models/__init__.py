"""Robot models: our own low-polygon MJCF files, and optionally the meshes of MuJoCo Menagerie under the same names."""

from blm.collect.sim.models.library import MODEL_NAMES, load_spec, model_path

__all__ = ["MODEL_NAMES", "load_spec", "model_path"]
