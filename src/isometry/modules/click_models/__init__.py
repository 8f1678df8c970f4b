"""Networks that predict a click from embedded categorical features and dense ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.modules.click_models.click_model import ClickModel
    from isometry.modules.click_models.dcn import DCN
    from isometry.modules.click_models.deep_fm import DeepFM
    from isometry.modules.click_models.dlrm import DLRM
    from isometry.modules.click_models.wide_deep import WideDeep

_HOMES = {
    "DCN": "dcn",
    "DLRM": "dlrm",
    "ClickModel": "click_model",
    "DeepFM": "deep_fm",
    "WideDeep": "wide_deep",
}

__all__ = ["DCN", "DLRM", "ClickModel", "DeepFM", "WideDeep"]

__getattr__, __dir__ = exports(__name__, _HOMES)
