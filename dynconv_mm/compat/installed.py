"""Whether there is OpenMMLab, without importing it."""
from importlib.util import find_spec

HAS_OPENMMLAB = None not in (find_spec('mmengine'), find_spec('mmcv'))
