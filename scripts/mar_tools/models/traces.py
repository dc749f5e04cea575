"""What was done to a network before it was saved, by names of tensors and of classes. Needs no PyTorch."""

import re
from collections.abc import Collection

# Names that a state dict has and its network lacks -> what was done to the network that was saved.
TRACES = {
    r"fake_quant|activation_post_process": "it was prepared for quantisation-aware training by torch.ao; save the "
    "float network, and let the build make int8",
    r"_packed_params|(^|\.)zero_point$|\.quant_state|\.SCB$|(^|\.)qweight$|weight_scale": "it is quantised, and its "
    "float weights are gone; save the state dict of the float network, and let the build make int8",
    r"(^|\.)parametrizations\.|weight_[guv]$": "its weights are reparametrised (weight or spectral norm); before you "
    "save, call torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm or remove_spectral_norm",
    r"\b(lora|hada|lokr|ia3)_": "it is an adapter (LoRA), or a network with one; merge it into its network first "
    "(`merge_and_unload()` of peft)",
}
SHARDED = "sharded weights of a distributed training; gather the full state dict before you save it"
# Packages whose tensors are no plain ones -> what to say.
FOREIGN_TENSORS = {
    "torch.distributed": SHARDED,
    "torchao": "weights quantised by torchao; save the state dict of the float model, and let the build make int8",
    "bitsandbytes": "weights quantised by bitsandbytes; save the float model",
    "torch.ScriptObject": "weights packed by torch.ao.quantization; save the float model, and let the build make int8",
}


def find_trace(names: Collection[str]) -> str | None:
    """Return what was done, and what to do about it; None where no name tells."""
    return next((told for mark, told in TRACES.items() if any(re.search(mark, name) for name in names)), None)


def explain_foreign(names: Collection[str]) -> str:
    """Return what the tensors of a file are that are no plain ones; nothing where they are."""
    return next((text for start, text in FOREIGN_TENSORS.items() if any(n.startswith(start) for n in names)), "")
