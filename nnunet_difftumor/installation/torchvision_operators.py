"""Lets torchvision be imported when its compiled operators do not fit the installed torch.

`difftumor doctor --fix` copies this file into site-packages, with a .pth file that imports it; `difftumor doctor
--unfix` removes both. It stands alone: it needs nothing of nnunet-difftumor.

A torchvision that was compiled for another torch (a CUDA torchvision beside a CPU torch) cannot load its operators,
and then fails to describe the missing operator `nms`. Declaring the operator, without an implementation, lets the rest
of torchvision work; calling the operator raises torchvision's own error. Nothing happens in a process that does not
import torchvision, nor where torchvision has its operators.
"""

import sys

declared = []
_libraries = []  # a torch.library.Library takes its declarations back when it is deleted


def _declare_missing_operators():
    import torch  # torchvision has imported it before it comes here

    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.append(name)


class _BeforeRegistrations:
    """An import hook that finds nothing itself: it only sees which module is about to be imported.

    torchvision imports these modules right after it has tried to load its operators; older releases have the second
    only.
    """

    def find_spec(self, name, path=None, target=None):
        if name in ("torchvision._autograd_registrations", "torchvision._meta_registrations") and not declared:
            _declare_missing_operators()
        return None


sys.meta_path.insert(0, _BeforeRegistrations())
