"""One line of advice under the traceback of the failures that people ask about most.

Some of them arise in mmdet or mmengine before any code of this package runs, so the advice is given where
all of them end: an uncaught exception.
"""
from __future__ import annotations

import sys
from types import TracebackType

from .optional import MISSING_OPS


def explain(error: BaseException) -> str | None:
    """What to do about ``error``, or None if that is not known."""
    message = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == 'mmcv._ext':
        return MISSING_OPS.format(user='mmdet')
    if isinstance(error, FileNotFoundError) and ('data/coco' in message or 'data/imagenet' in message):
        return ('the data set is not there. Detection configs expect COCO in data/coco (with annotations/, train2017/ '
                'and val2017/), classification configs ImageNet in data/imagenet (with train/ and val/). Link it '
                'there, or name its place in your own config or with --cfg-options, as '
                'train_dataloader.dataset.data_root, val_dataloader.dataset.data_root and (COCO) '
                'val_evaluator.ann_file.')
    return None


def install_hints() -> None:
    """Print the advice after the traceback; done by ``import dynconv_mm``. Nothing is caught or hidden."""
    print_traceback = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        print_traceback(kind, error, traceback)
        advice = explain(error)
        if advice:
            print(f'\ndynconv_mm: {advice}', file=sys.stderr)

    sys.excepthook = excepthook
