"""All that leans on private parts of Lightning or on `torch.distributed`."""

from lightning_vocab.distributed.checkpoint_folders import METADATA_NAME, read_metadata
from lightning_vocab.distributed.clipping import clip_by_global_norm
from lightning_vocab.distributed.exchange import RankExchange
from lightning_vocab.distributed.rewrap import rewrap
from lightning_vocab.distributed.shard_model import shard_model
from lightning_vocab.distributed.shardable_module import ShardableModule
from lightning_vocab.distributed.sharded_rows import ShardedRows
from lightning_vocab.distributed.strategies import (
    is_sharded,
    refuse_sharded_strategy,
    refuse_unsupported_strategy,
    refuse_untested_strategy,
)
from lightning_vocab.distributed.whole_model import whole_model

__all__ = [
    "METADATA_NAME",
    "RankExchange",
    "ShardableModule",
    "ShardedRows",
    "clip_by_global_norm",
    "is_sharded",
    "read_metadata",
    "refuse_sharded_strategy",
    "refuse_unsupported_strategy",
    "refuse_untested_strategy",
    "rewrap",
    "shard_model",
    "whole_model",
]
