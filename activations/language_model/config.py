"""What a language model is made of: the static description that programs are compiled for."""

import dataclasses
from typing import Literal

import numpy as np

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_act", "mlp_out", "resid_post")


@dataclasses.dataclass(frozen=True)
class Rotary:
    """A rotary embedding (Su et al. 2021) of the leading dimensions of every head, the two halves paired.

    Attributes:
      width: dimensions that are rotated (even).
      base: of the wavelengths, 2π·base^(2i/width).
      scaling: "none"; "linear": all wavelengths times `factor`; "llama3": the long ones times `factor`, the short ones as they
        are, in between interpolated (Llama 3.1).
      factor, low, high, positions: of "llama3": wavelengths above positions/low are stretched, those below positions/high are not.
    """

    width: int
    base: float
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    positions: int = 0

    def frequencies(self) -> np.ndarray:
        """Radians per position of every pair of dimensions, (width / 2,) float32."""
        plain = np.float32(1) / np.float32(self.base) ** (np.arange(0, self.width, 2, dtype=np.float32) / np.float32(self.width))
        if self.scaling == "linear":
            return plain / np.float32(self.factor)
        if self.scaling == "llama3":
            periods = self.positions * plain / (2 * np.pi)  # within the context the model was made for
            kept = np.clip((periods - self.low) / (self.high - self.low), 0, 1)
            return ((1 - kept) * plain / self.factor + kept * plain).astype(np.float32)
        return plain


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Static description of a transformer; hashable.

    Attributes:
      family: `model_type` of the Hugging Face config that it was read from.
      vocab_size: rows of the embedding.
      width: residual stream width (D).
      n_layers: number of blocks.
      n_heads, n_kv_heads: attention heads, and how many of them have keys and values of their own.
      head_width: dimensions of a head.
      mlp_width: hidden width of the MLP.
      max_positions: longest context the model was made for.
      activation: a key of `block.ACTIVATIONS`.
      norm: "layer" with bias, or "rms" without.
      norm_eps: added to the variance in norms.
      unit_offset: norms multiply by 1 + w (Gemma) instead of w.
      residual: "pre": norms before attention and MLP, one after the other; "parallel": both read the block's input (GPT-NeoX);
        "sandwich": norms before and after each (Gemma 2); "post": norms after the addition (BERT).
      qk_norm: norms of queries and keys, per head.
      rotary: kinds of rotary embedding; (): learned positions.
      layer_rotary: of every layer, which kind; () where there is at most one kind.
      layer_window: of every layer, how many positions back it sees, itself included; 0: all. (): all layers see all.
      attention_scale: factor on q·k; 0: 1/√head_width.
      attention_softcap, logit_softcap: c·tanh(x/c) of scores and logits; 0: none.
      embed_scale: factor on embeddings.
      qkv_bias, out_bias, mlp_bias: which linear maps have one.
      gated_mlp: act(gate x)·(up x) instead of act(up x).
      causal: positions see only those before them; False: an encoder.
      token_types: rows of the token-type embedding, of which the first is added everywhere; 0: none.
      embed_norm: a norm behind the embeddings.
      head: "linear": final norm and unembedding; "masked": BERT's; "none": the checkpoint holds none.
      tied_embeddings: the unembedding is the embedding transposed.
    """

    family: str
    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    mlp_width: int
    max_positions: int
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "silu"]
    norm_eps: float
    tied_embeddings: bool
    norm: Literal["layer", "rms"] = "layer"
    unit_offset: bool = False
    residual: Literal["pre", "parallel", "sandwich", "post"] = "pre"
    qk_norm: bool = False
    rotary: tuple[Rotary, ...] = ()
    layer_rotary: tuple[int, ...] = ()
    layer_window: tuple[int, ...] = ()
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embed_scale: float = 1.0
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    gated_mlp: bool = False
    causal: bool = True
    token_types: int = 0
    embed_norm: bool = False
    head: Literal["linear", "masked", "none"] = "linear"

    def sites(self) -> dict[str, int]:
        """Width of every site that a layer has.

        resid_pre: the stream entering the block; attn_out: what attention adds to it; resid_mid: the stream between the two;
        mlp_in: what the MLP reads (normed); mlp_act: its hidden activations; mlp_out: what it adds; resid_post: the stream behind.
        """
        widths = {site: self.mlp_width if site == "mlp_act" else self.width for site in SITES}
        if self.residual == "parallel":
            del widths["resid_mid"]
        return widths

    def check_place(self, layer: int, site: str) -> None:
        """Raises ValueError naming the config's field where there is no such layer or site."""
        if not 0 <= layer < self.n_layers:
            raise ValueError(f"config.source.layer={layer}: the model has layers 0 to {self.n_layers - 1}")
        if site not in self.sites():
            raise ValueError(f"config.source.site={site!r}: layers of this {self.family} model have {', '.join(self.sites())}")
