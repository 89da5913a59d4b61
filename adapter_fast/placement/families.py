"""Module names of transformers 5's models: one row a model family, data only.

The names hold from transformers 5.5 to 5.23. Where a family's layer is written in one of two ways, by its
configuration, the row names that setting and the other row (OPT's 350m, Wav2Vec2's stable layer norm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class SubLayer:
    """A sub-layer's modules, named relative to its layer.

    Where a model drops out with a function in place of a module, or with one module twice a layer, the hook is the
    linear layer before that dropout.
    """

    hook: str  # its output is the sub-layer's output, before the residual sum: Houlsby's place
    dense: str  # the linear layer that produces that output: gives width, device and dtype
    entry: str  # its input is the stream that enters the sub-layer: what a parallel adapter reads
    norm: str | None = None  # the LayerNorm behind the residual sum; None where the norm comes first ("pre-LN")
    sum: str | None = None  # where the norm comes first: the module whose output is the residual sum; "" is the layer
    second_norm: str | None = None  # one between the sub-layer's output and the residual sum, as in Gemma


@dataclass(frozen=True)
class Stack:
    """A row of equal layers. `layer` matches their whole names."""

    layer: str
    attention: SubLayer
    feed_forward: SubLayer
    cross_attention: SubLayer | None = None


# What the libraries newly initialise for a task, at a model's top level. The pooler (bert.pooler.dense) is not among
# it: adapter-bert freezes it. RoBERTa's and ELECTRA's classifier.dense and DistilBERT's pre_classifier are. A language
# model's head is pretrained and mostly tied to the embedding, so it is no head of a task.
HEAD = (
    "classifier",
    "pre_classifier",
    "qa_outputs",
    "score",
    "classification_head",
    "sequence_summary",
    "multiple_choice_head",
    "projector",
)


@dataclass(frozen=True)
class Family:
    """One model_type. Every pattern must match a whole module name."""

    stacks: tuple[Stack, ...]
    input_norms: tuple[str, ...]  # those that run before the first layer
    layer_norms: tuple[str, ...]  # all others, those of the layers and those behind them
    head: tuple[str, ...] = HEAD
    towers: bool = False  # its stacks are independent of each other
    unless: tuple[str, Any] | None = None  # (a setting of the configuration, the value at which `otherwise` holds)
    otherwise: Family | None = None
    models: str = ""  # published models, for the table of families
    note: str = ""  # what a user should know, for the table of families


def _post(dense: str, hook: str, entry: str, norm: str) -> SubLayer:
    return SubLayer(hook=hook, dense=dense, entry=entry, norm=norm)


def _pre(
    dense: str, entry: str, hook: str | None = None, sum: str | None = None, second_norm: str | None = None
) -> SubLayer:
    return SubLayer(hook=hook or dense, dense=dense, entry=entry, sum=sum, second_norm=second_norm)


_OUTPUT = _post("output.dense", "output.dropout", "intermediate", "output.LayerNorm")
_BERT_LAYER = r"(?:.+\.)?encoder\.layer\.\d+"
_BERT_ATTENTION = _post(
    "attention.output.dense", "attention.output.dropout", "attention.self.query", "attention.output.LayerNorm"
)
_BERT = Family(
    stacks=(Stack(_BERT_LAYER, _BERT_ATTENTION, _OUTPUT),),
    input_norms=(r"(?:.+\.)?embeddings\.LayerNorm",),
    layer_norms=(rf"{_BERT_LAYER}\.(?:(?:cross)?attention\.)?output\.LayerNorm",),
)

_ALBERT_LAYER = r"(?:.+\.)?albert_layer_groups\.\d+\.albert_layers\.\d+"
_ALBERT = Family(
    stacks=(
        Stack(
            _ALBERT_LAYER,
            _post("attention.dense", "attention.output_dropout", "attention.query", "attention.LayerNorm"),
            _post("ffn_output", "ffn_output", "ffn", "full_layer_layer_norm"),
        ),
    ),
    input_norms=_BERT.input_norms,
    layer_norms=(rf"{_ALBERT_LAYER}\.(?:attention\.LayerNorm|full_layer_layer_norm)",),
)

_DISTILBERT_LAYER = r"(?:.+\.)?transformer\.layer\.\d+"
# Its attention has no output dropout, so its last linear is the place. Its ffn's dropout runs inside the chunked
# feed-forward, once a chunk, as in the other families: an adapter works on single tokens, so both agree.
_DISTILBERT = Family(
    stacks=(
        Stack(
            _DISTILBERT_LAYER,
            _post("attention.out_lin", "attention.out_lin", "attention.q_lin", "sa_layer_norm"),
            _post("ffn.lin2", "ffn.dropout", "ffn", "output_layer_norm"),
        ),
    ),
    input_norms=_BERT.input_norms,
    layer_norms=(rf"{_DISTILBERT_LAYER}\.(?:sa|output)_layer_norm",),
)

_DEBERTA = Family(
    stacks=(Stack(_BERT_LAYER, replace(_BERT_ATTENTION, entry="attention.self.query_proj"), _OUTPUT),),
    # The norm of the relative positions feeds every layer, that of the convolution the second.
    input_norms=(*_BERT.input_norms, r"(?:.+\.)?encoder\.(?:conv\.)?LayerNorm"),
    layer_norms=_BERT.layer_norms,
    head=(*HEAD, "pooler"),  # newly initialised for a task, unlike BERT's
)

_MPNET = Family(
    stacks=(
        Stack(
            _BERT_LAYER,
            _post("attention.attn.o", "attention.dropout", "attention.attn.q", "attention.LayerNorm"),
            _OUTPUT,
        ),
    ),
    input_norms=_BERT.input_norms,
    layer_norms=(rf"{_BERT_LAYER}\.(?:attention|output)\.LayerNorm",),
)

_LAYERS = r"(?:.+\.)?layers\.\d+"
_MODERNBERT = Family(
    stacks=(
        Stack(
            _LAYERS,
            _pre("attn.Wo", "attn_norm", hook="attn.out_drop"),
            _pre("mlp.Wo", "mlp_norm", sum=""),
        ),
    ),
    input_norms=(r"(?:.+\.)?embeddings\.norm",),
    layer_norms=(rf"{_LAYERS}\.(?:attn|mlp)_norm", r"(?:.+\.)?final_norm"),
)

_GPT2_LAYER = r"(?:.+\.)?h\.\d+"
_GPT2 = Family(
    stacks=(
        Stack(
            _GPT2_LAYER,
            _pre("attn.c_proj", "ln_1", hook="attn.resid_dropout"),
            _pre("mlp.c_proj", "ln_2", hook="mlp.dropout", sum=""),
        ),
    ),
    input_norms=(),
    layer_norms=(rf"{_GPT2_LAYER}\.ln_(?:1|2|cross_attn)", r"(?:.+\.)?ln_f"),
)

_NEOX = Family(
    stacks=(
        Stack(
            _LAYERS,
            _pre("attention.dense", "input_layernorm", hook="post_attention_dropout"),
            _pre("mlp.dense_4h_to_h", "post_attention_layernorm", hook="post_mlp_dropout", sum=""),
        ),
    ),
    input_norms=(),
    layer_norms=(rf"{_LAYERS}\.(?:input|post_attention)_layernorm", r"(?:.+\.)?final_layer_norm"),
)


def _llama(layer: str, models: str, gemma: bool = False) -> Family:
    """Llama and those built like it: two RMSNorms a layer, four in Gemma."""
    attention = _pre("self_attn.o_proj", "input_layernorm")
    feed_forward = _pre("mlp.down_proj", "post_attention_layernorm", sum="")
    if gemma:
        attention = replace(attention, second_norm="post_attention_layernorm")
        feed_forward = replace(
            feed_forward, entry="pre_feedforward_layernorm", second_norm="post_feedforward_layernorm"
        )
    return Family(
        stacks=(Stack(layer, attention, feed_forward),),
        input_norms=(),
        layer_norms=(
            rf"{layer}\.(?:input|post_attention|pre_feedforward|post_feedforward)_layernorm",
            rf"{layer.rpartition('layers')[0]}norm",
        ),
        models=models,
        note="a second norm stands between the adapter and the residual sum" if gemma else "",
    )


_PHI = Family(
    stacks=(Stack(_LAYERS, _pre("self_attn.dense", "input_layernorm"), _pre("mlp.fc2", "input_layernorm", sum="")),),
    input_norms=(),
    layer_norms=(rf"{_LAYERS}\.input_layernorm", r"(?:.+\.)?final_layernorm"),
    models="Phi-1, 1.5, 2",
    note="one norm feeds both sub-layers",
)

# BART's layer and its relatives': the linear layers are followed by a dropout function.
_BART_LAYER = r"(?:.+\.)?(?:en|de)coder\.layers\.\d+"
_BART = Family(
    stacks=(
        Stack(
            _BART_LAYER,
            _post("self_attn.out_proj", "self_attn.out_proj", "self_attn.q_proj", "self_attn_layer_norm"),
            _post("fc2", "fc2", "fc1", "final_layer_norm"),
            _post("encoder_attn.out_proj", "encoder_attn.out_proj", "encoder_attn.q_proj", "encoder_attn_layer_norm"),
        ),
    ),
    input_norms=(r"(?:.+\.)?(?:en|de)coder\.layernorm_embedding",),
    layer_norms=(rf"{_BART_LAYER}\.(?:self_attn|encoder_attn|final)_layer_norm",),
    models="BART",
)
_PRE_BART = Stack(
    _BART_LAYER,
    _pre("self_attn.out_proj", "self_attn_layer_norm"),
    _pre("fc2", "final_layer_norm", sum=""),
    _pre("encoder_attn.out_proj", "encoder_attn_layer_norm"),
)
_WHISPER = Family(
    stacks=(_PRE_BART,),
    input_norms=(),
    layer_norms=(*_BART.layer_norms, r"(?:.+\.)?(?:en|de)coder\.layer_norm"),
    models="Whisper",
)
_OPT = Family(
    stacks=(replace(_PRE_BART, cross_attention=None),),
    input_norms=(),
    layer_norms=(rf"{_BART_LAYER}\.(?:self_attn|final)_layer_norm", r"(?:.+\.)?decoder\.final_layer_norm"),
    unless=("do_layer_norm_before", False),
    otherwise=Family(
        stacks=(replace(_BART.stacks[0], cross_attention=None),),
        input_norms=(),
        layer_norms=(rf"{_BART_LAYER}\.(?:self_attn|final)_layer_norm",),
    ),
    models="OPT",
    note="350m, whose norms come last, has a row of its own",
)


def _t5_stack(stack: str, feed_forward: int) -> Stack:
    def sub_layer(number: int, dense: str, sum: str | None = None) -> SubLayer:
        place = f"layer.{number}"
        return _pre(f"{place}.{dense}", f"{place}.layer_norm", hook=f"{place}.dropout", sum=sum)

    return Stack(
        rf"(?:.+\.)?{stack}\.block\.\d+",
        sub_layer(0, "SelfAttention.o"),
        sub_layer(feed_forward, "DenseReluDense.wo", sum=f"layer.{feed_forward}"),
        sub_layer(1, "EncDecAttention.o") if feed_forward == 2 else None,
    )


_T5 = Family(
    stacks=(_t5_stack("encoder", 1), _t5_stack("decoder", 2)),
    input_norms=(),
    layer_norms=(r"(?:.+\.)?block\.\d+\.layer\.\d\.layer_norm", r"(?:.+\.)?(?:en|de)coder\.final_layer_norm"),
    models="T5, Flan-T5",
)

_VIT = Family(
    stacks=(
        Stack(_LAYERS, _pre("attention.o_proj", "layernorm_before"), _pre("mlp.fc2", "layernorm_after", sum="")),
        Stack(  # in older versions of transformers, 5.5 among them
            _BERT_LAYER,
            _pre("attention.output.dense", "layernorm_before"),
            _pre("output.dense", "layernorm_after", sum=""),
        ),
    ),
    input_norms=(),
    layer_norms=(rf"(?:{_LAYERS}|{_BERT_LAYER})\.layernorm_(?:before|after)", r"(?:.+\.)?layernorm"),
    models="ViT",
    note="one dropout module serves both sub-layers: the hooks are the linear layers before it",
)
_CLIP = Family(
    stacks=(Stack(_LAYERS, _pre("self_attn.out_proj", "layer_norm1"), _pre("mlp.fc2", "layer_norm2", sum="")),),
    input_norms=(r"(?:.+\.)?pre_layrnorm",),
    layer_norms=(rf"{_LAYERS}\.layer_norm[12]", r"(?:.+\.)?(?:final_layer_norm|post_layernorm)"),
    towers=True,
    models="CLIP",
    note="text and vision tower alike; `layers` counts the text tower's first",
)

_WAV2VEC2_NORMS = (rf"{_LAYERS}\.(?:final_)?layer_norm",)
_WAV2VEC2_INPUT = (r"(?:.+\.)?feature_projection\.layer_norm",)
_WAV2VEC2 = Family(
    stacks=(
        Stack(
            _LAYERS,
            _post("attention.out_proj", "dropout", "attention.q_proj", "layer_norm"),
            _post("feed_forward.output_dense", "feed_forward.output_dropout", "feed_forward", "final_layer_norm"),
        ),
    ),
    input_norms=(*_WAV2VEC2_INPUT, r"(?:.+\.)?encoder\.layer_norm"),
    layer_norms=_WAV2VEC2_NORMS,
    head=(*HEAD, "lm_head"),  # CTC's, newly initialised
    unless=("do_stable_layer_norm", True),
    otherwise=Family(
        stacks=(
            Stack(
                _LAYERS,
                _pre("attention.out_proj", "layer_norm", hook="dropout"),
                _pre("feed_forward.output_dense", "final_layer_norm", hook="feed_forward.output_dropout", sum=""),
            ),
        ),
        input_norms=_WAV2VEC2_INPUT,
        layer_norms=(*_WAV2VEC2_NORMS, r"(?:.+\.)?encoder\.layer_norm"),
        head=(*HEAD, "lm_head"),
    ),
    models="Wav2Vec2",
    note="the stable layer norm of the large models has a row of its own",
)

FAMILIES: dict[str, Family] = {
    "bert": replace(_BERT, models="BERT, MiniLM"),
    "roberta": replace(_BERT, models="RoBERTa"),
    "xlm-roberta": replace(_BERT, models="XLM-R"),
    "electra": replace(_BERT, models="ELECTRA"),
    "albert": replace(_ALBERT, models="ALBERT", note="layers share their weights, and so their adapters"),
    "distilbert": replace(_DISTILBERT, models="DistilBERT"),
    "deberta-v2": replace(_DEBERTA, models="DeBERTa-v2, v3"),
    "mpnet": replace(_MPNET, models="MPNet"),
    "modernbert": replace(_MODERNBERT, models="ModernBERT"),
    "gpt2": replace(_GPT2, models="GPT-2, DistilGPT2"),
    "gpt_neox": replace(_NEOX, models="GPT-NeoX, Pythia"),
    "opt": _OPT,
    "llama": _llama(_LAYERS, "Llama"),
    "mistral": _llama(_LAYERS, "Mistral"),
    "qwen2": _llama(_LAYERS, "Qwen2, 2.5"),
    "qwen3": _llama(_LAYERS, "Qwen3"),
    "gemma2": _llama(_LAYERS, "Gemma 2", gemma=True),
    "gemma3_text": _llama(_LAYERS, "Gemma 3, text", gemma=True),
    "gemma3": _llama(r"(?:.+\.)?language_model\.layers\.\d+", "Gemma 3, its language model", gemma=True),
    "phi": _PHI,
    "t5": _T5,
    "bart": _BART,
    "whisper": _WHISPER,
    "vit": _VIT,
    "clip": _CLIP,
    "clip_text_model": replace(_CLIP, models="CLIP, text tower", note=""),
    "clip_vision_model": replace(_CLIP, models="CLIP, vision tower", note=""),
    "wav2vec2": _WAV2VEC2,
}
