"""The half of a network with adapters that trains; BLIP-2 and chat models each complete it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from medical_vqa.models.hf.generation import summed_loss
from medical_vqa.models.hf.lora import keep_trainable_state

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch


class AdapterNet(nn.Module, ABC):
    """The trainable half of a network; its state is what trains alone."""

    def __init__(self, peft_model: Any, vision_encoder: nn.Module) -> None:
        super().__init__()
        self.peft_model = peft_model
        self._frozen = (vision_encoder,)  # in a tuple: not a submodule, neither moved with this one nor saved
        keep_trainable_state(self)

    @property
    def base(self) -> Any:
        """The network with its adapters."""
        return self.peft_model.get_base_model()

    @property
    def vision_encoder(self) -> Any:
        """The frozen vision modules."""
        return self._frozen[0]

    @abstractmethod
    def answer_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (..., V) that predict the labels (...) of the answers."""

    def forward(self, batch: Batch) -> Tensor:
        """Cross entropy summed over the tokens of the answers, in nats."""
        return summed_loss(*self.answer_logits(batch))
