#!/usr/bin/env python3
"""Makes a reference.safetensors for a Qwen3-MoE folder with PyTorch and transformers in float32: an independent judge for `gpukit eval`.

Weights are widened to float32 (FP8 blocks times their scales), so nothing is rounded on the way. Written are, for each prompt i,
prompti.input_ids (I32), prompti.logits (F32, every position), prompti.routerL.logits (F32, each sparse layer) and prompti.greedy (I32: the
continuation until a stop id or --greedy tokens; left out where a choice is nearer to the second than --margin, since rounding decides it).

Prompts are the lines of a text file (--prompts), those of another reference (--ids-from), or random ids (--lengths, --seed), which need no tokenizer.
With --device cuda a card computes, in float32 without TF32.
  make_reference.py MODEL --prompts FILE --out reference.safetensors
  make_reference.py MODEL --lengths 1,15,16,17,129,1000 --greedy 0 --device cuda --out reference.safetensors
"""
import argparse
import json
import pathlib
import random
import sys

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def widened_weights(folder, device):
    """All tensors of the folder in float32; the scales of FP8 blocks are multiplied in."""
    tensors = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(shard, device=device))
    if not tensors:
        sys.exit(f"{folder} holds no model*.safetensors")
    quantization = json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    method = quantization.get("quant_method", "fp8")
    if method != "fp8":
        sys.exit(f"{folder}: quant_method '{method}' cannot be widened here; it must be fp8 or absent")
    block_rows, block_columns = quantization.get("weight_block_size") or (128, 128)
    weights = {}
    for name in [n for n in tensors if not n.endswith(".weight_scale_inv")]:
        tensor = tensors.pop(name)
        weights[name] = tensor.float()
        scale = tensors.get(name + "_scale_inv")
        if scale is not None:
            rows, columns = tensor.shape
            spread = scale.float().repeat_interleave(block_rows, 0)[:rows].repeat_interleave(block_columns, 1)[:, :columns]
            weights[name] *= spread
    return weights


def load(folder, device):
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.torch_dtype = torch.float32
    # Made where it computes: random numbers for weights that are replaced take long on a CPU.
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    # Newer versions may choose grouped products for experts, which are for BF16.
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    weights = widened_weights(folder, device)
    own = model.state_dict()
    # Newer versions keep a layer's experts in one tensor.
    for name in [n for n in own if n.endswith("experts.gate_up_proj") or n.endswith("experts.down_proj")]:
        prefix = name.rsplit(".", 1)[0]
        experts = range(own[name].shape[0])
        if name.endswith("down_proj"):
            stack = torch.stack([weights.pop(f"{prefix}.{e}.down_proj.weight") for e in experts])
        else:
            stack = torch.stack([torch.cat([weights.pop(f"{prefix}.{e}.{part}_proj.weight") for part in ("gate", "up")]) for e in experts])
        if stack.shape != own[name].shape:
            sys.exit(f"'{name}' is {tuple(own[name].shape)} in this version of transformers, {tuple(stack.shape)} in the file")
        weights[name] = stack
    if config.tie_word_embeddings:
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        sys.exit(f"weights do not fit the model: missing {missing[:5]}, unexpected {unexpected[:5]}")
    return model


def routers(model):
    """The modules whose output is a layer's router logits, by layer."""
    return {i: layer.mlp.gate for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "gate")}


def forward(model, ids):
    """Logits of every position and of every router, computed from the router's weights and input."""
    seen = {}

    def keep(layer):
        def hook(module, inputs):
            states = inputs[0].reshape(-1, inputs[0].shape[-1])
            seen[layer] = states @ module.weight.t()
        return hook

    handles = [gate.register_forward_pre_hook(keep(i)) for i, gate in routers(model).items()]
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0]
    for handle in handles:
        handle.remove()
    return logits.cpu(), {layer: values.cpu() for layer, values in seen.items()}


def continuation(model, ids, stops, most, margin):
    """Greedy ids up to a stop id, or None where a choice was nearly a tie."""
    chosen = []
    while len(chosen) < most:
        best = forward(model, ids + chosen)[0][-1].topk(2)
        if best.values[0] - best.values[1] < margin:
            return None
        chosen.append(int(best.indices[0]))
        if chosen[-1] in stops:
            break
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", type=pathlib.Path, help="text file, one prompt a line")
    source.add_argument("--ids-from", type=pathlib.Path, help="a reference whose prompts are used again")
    source.add_argument("--lengths", help="random prompts of so many tokens each, as in 1,16,129")
    parser.add_argument("--seed", type=int, default=1, help="of random prompts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--greedy", type=int, default=32, help="most tokens of a continuation; 0 for none")
    parser.add_argument("--margin", type=float, default=0.05, help="least distance of the best logit from the second")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()

    if options.prompts:
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        prompts = {i: tokenizer(line)["input_ids"] for i, line in enumerate(options.prompts.read_text().splitlines()) if line}
    elif options.lengths:
        numbers = random.Random(options.seed)
        vocabulary = json.loads((options.model / "config.json").read_text())["vocab_size"]
        prompts = {i: [numbers.randrange(vocabulary) for _ in range(int(length))] for i, length in enumerate(options.lengths.split(","))}
    else:
        with safe_open(options.ids_from, "pt") as file:
            prompts = {int(n[len("prompt"):-len(".input_ids")]): file.get_tensor(n).tolist() for n in file.keys() if n.endswith(".input_ids")}
    print(f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {options.device}", file=sys.stderr)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = load(options.model, options.device)
    # The generation config is the file's; a model made from a config has none of its own.
    generation = options.model / "generation_config.json"
    stops = json.loads((generation if generation.exists() else options.model / "config.json").read_text()).get("eos_token_id", [])
    stops = {stops} if isinstance(stops, int) else set(stops or [])
    tensors = {}
    for number, ids in sorted(prompts.items()):
        logits, seen = forward(model, ids)
        tensors[f"prompt{number}.input_ids"] = torch.tensor(ids, dtype=torch.int32)
        tensors[f"prompt{number}.logits"] = logits.float().contiguous()
        for layer, values in seen.items():
            tensors[f"prompt{number}.router{layer}.logits"] = values.float().contiguous()
        greedy = continuation(model, ids, stops, options.greedy, options.margin) if options.greedy else None
        if greedy:
            tensors[f"prompt{number}.greedy"] = torch.tensor(greedy, dtype=torch.int32)
        print(f"prompt {number}: {len(ids)} tokens, continuation {'left out' if greedy is None else len(greedy)}", file=sys.stderr)
    save_file(tensors, options.out)


if __name__ == "__main__":
    main()
