"""The command line under FSDP on CPUs, which accelerate offers on GPUs alone: only its choice of kind is overruled.

torchrun --nproc-per-node=2 sharded.py train RECIPE     # STOP_AFTER=3 ends the processes after three steps
"""

from __future__ import annotations

import os
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from medical_vqa.cli import main
from medical_vqa.training import loop

begin, take_step = AcceleratorState.__init__, loop._TrainingRun.step


def initialize_sharded(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    begin(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def step(self: Any, *arguments: Any) -> None:
    take_step(self, *arguments)
    assert loop.is_sharded(self.module)
    if self.progress.step == int(os.environ.get("STOP_AFTER", "0")):
        self.save_checkpoint()
        os._exit(9)


AcceleratorState.__init__, loop._TrainingRun.step = initialize_sharded, step
main()
