"""Changing a model: training loops and what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.training.adapters import add_lora, merge_lora
    from isometry.training.best_weights import BestWeights
    from isometry.training.checkpoints import Checkpoints
    from isometry.training.click_through import ClickLog, ClickRun, ClickTrainer, train_click_model
    from isometry.training.collate import keep_texts
    from isometry.training.cross_encoder import train_cross_encoder, train_cross_encoder_listwise
    from isometry.training.definitions import (
        DefinitionRun,
        DefinitionTraining,
        entry_vectors,
        prompt_vectors,
        train_definitions,
    )
    from isometry.training.distil import align_student
    from isometry.training.embedders import decoder_embedder
    from isometry.training.frozen_features import FrozenFeatures
    from isometry.training.generation import GRL, GenerationPrompt, GRLConfig, QueryGroup
    from isometry.training.gradient_caching import embed_cached, grad_cache
    from isometry.training.in_context import accuracy_in_context, train_in_context
    from isometry.training.late_interaction import MaxSimTraining, train_head, train_late_interaction
    from isometry.training.length_batches import LengthBatches
    from isometry.training.listwise_embedding import e2rank_loss, train_listwise_embedder
    from isometry.training.loop import seeded, train
    from isometry.training.masked_language import (
        masked_language_modelling,
        raw_encoder,
        sentence_model,
    )
    from isometry.training.merging import loss_barrier, merge_models
    from isometry.training.pair_distillation import cross_fitted, train_pair_student
    from isometry.training.prompted import PromptedEmbedder, train_prompted
    from isometry.training.special_tokens import SpecialTokenModel
    from isometry.training.students import apply_head, layer_features, mlp_head
    from isometry.training.tuning import Plan, RowKind, Tuning, default_loss, default_plan
    from isometry.training.wordpiece import train_wordpiece
    from isometry.training.yes_no import train_yes_no

_HOMES = {
    "BestWeights": "best_weights",
    "Checkpoints": "checkpoints",
    "ClickLog": "click_through",
    "ClickRun": "click_through",
    "ClickTrainer": "click_through",
    "DefinitionRun": "definitions",
    "DefinitionTraining": "definitions",
    "FrozenFeatures": "frozen_features",
    "GRL": "generation",
    "GRLConfig": "generation",
    "GenerationPrompt": "generation",
    "LengthBatches": "length_batches",
    "MaxSimTraining": "late_interaction",
    "Plan": "tuning",
    "PromptedEmbedder": "prompted",
    "QueryGroup": "generation",
    "RowKind": "tuning",
    "SpecialTokenModel": "special_tokens",
    "Tuning": "tuning",
    "accuracy_in_context": "in_context",
    "add_lora": "adapters",
    "align_student": "distil",
    "apply_head": "students",
    "decoder_embedder": "embedders",
    "default_loss": "tuning",
    "default_plan": "tuning",
    "e2rank_loss": "listwise_embedding",
    "embed_cached": "gradient_caching",
    "entry_vectors": "definitions",
    "grad_cache": "gradient_caching",
    "keep_texts": "collate",
    "layer_features": "students",
    "loss_barrier": "merging",
    "masked_language_modelling": "masked_language",
    "merge_lora": "adapters",
    "merge_models": "merging",
    "mlp_head": "students",
    "prompt_vectors": "definitions",
    "raw_encoder": "masked_language",
    "seeded": "loop",
    "sentence_model": "masked_language",
    "train": "loop",
    "train_click_model": "click_through",
    "train_cross_encoder": "cross_encoder",
    "train_cross_encoder_listwise": "cross_encoder",
    "train_definitions": "definitions",
    "train_head": "late_interaction",
    "train_in_context": "in_context",
    "train_late_interaction": "late_interaction",
    "train_listwise_embedder": "listwise_embedding",
    "train_pair_student": "pair_distillation",
    "cross_fitted": "pair_distillation",
    "train_prompted": "prompted",
    "train_wordpiece": "wordpiece",
    "train_yes_no": "yes_no",
}

__all__ = [
    "GRL",
    "BestWeights",
    "Checkpoints",
    "ClickLog",
    "ClickRun",
    "ClickTrainer",
    "DefinitionRun",
    "DefinitionTraining",
    "FrozenFeatures",
    "GRLConfig",
    "GenerationPrompt",
    "LengthBatches",
    "MaxSimTraining",
    "Plan",
    "PromptedEmbedder",
    "QueryGroup",
    "RowKind",
    "SpecialTokenModel",
    "Tuning",
    "accuracy_in_context",
    "add_lora",
    "align_student",
    "apply_head",
    "cross_fitted",
    "decoder_embedder",
    "default_loss",
    "default_plan",
    "e2rank_loss",
    "embed_cached",
    "entry_vectors",
    "grad_cache",
    "keep_texts",
    "layer_features",
    "loss_barrier",
    "masked_language_modelling",
    "merge_lora",
    "merge_models",
    "mlp_head",
    "prompt_vectors",
    "raw_encoder",
    "seeded",
    "sentence_model",
    "train",
    "train_click_model",
    "train_cross_encoder",
    "train_cross_encoder_listwise",
    "train_definitions",
    "train_head",
    "train_in_context",
    "train_late_interaction",
    "train_listwise_embedder",
    "train_pair_student",
    "train_prompted",
    "train_wordpiece",
    "train_yes_no",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
