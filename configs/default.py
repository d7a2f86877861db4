"""Every field of a study, with unit, range and where its default comes from. Other configs change this one.

Lengths are in tokens, shares in [0, 1]; a cosine is signed.
"""

import ml_collections

# Stages that measure SAEs, whatever they come from.
MEASURING = ("stability", "sensitivity", "subspace", "atlas", "diagnosis", "transfer", "function", "statistics", "explanations")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"--config=configs/default.py:{arg}: takes no argument")
    c = ml_collections.ConfigDict()
    c.stages = (
        "activations",
        "train",
        "gaussian",
        *MEASURING,
        "splice",
        "report",
    )  # in this order
    c.seeds = (8,)  # one number: a count, seeds 0, 1, …; several: the seeds themselves. At least 2; 21 for a primary cell
    c.init_seed = -1  # initialisation: -1: each SAE's by its seed; else this one for all (b_dec follows the data: a first batch's median)
    c.data_seed = 0  # order of activations: this one for all, who then share the batch in memory; -1: each SAE's by its seed (S batches)
    c.gaussian_seeds = (
        4  # SAEs trained on Gaussian activations of the same mean and covariance, a null model; none without the stage `gaussian`
    )
    c.sweep = sweep = ml_collections.ConfigDict()  # values along the vmapped axis, one compile; each combination on all seeds
    sweep.lr = ()  # peak learning rates; (): train.lr
    sweep.k = ()  # active features a token, at most sae.k; (): sae.k
    sweep.sparsity = ()  # fixed penalty coefficients, with sae.control_rate=0 and sae.control_gain=0; (): sae.sparsity
    c.source = source = ml_collections.ConfigDict()  # text and the activations read over it, or activations that are there already
    source.text = ""  # a .txt or .jsonl file, or a folder of them; "": the standard library. See activations/text/local_files.py
    source.text_field = "text"  # of a line of a .jsonl file
    source.root = ""  # folder of a Python standard library; "": the running interpreter's
    source.activations = (
        ""  # .npy, .npz, safetensors (…, D), or folders of them, with commas between; "": read them with lm. See activations/adopt.py
    )
    source.eval_activations = ""  # held-out ones, eval_tokens of them; "": the last eval_tokens rows of source.activations, at most a tenth. All others are trained on
    source.activations_of = ""  # model and hook that source.activations are of, for exports and the report
    source.start_token = ""  # text of the token that begins every context; "": what the tokenizer names
    source.context_length = 256  # tokens, start token included; what the embedded model was trained on
    source.tokens = 1_600_000  # rows to harvest for training; fewer if the text is shorter
    source.eval_tokens = 150_000  # rows from held-out files, for every figure about activations
    source.layer = 1  # block whose output is read, from 0
    source.site = "resid_post"  # the residual stream behind the block; or resid_pre, attn_out, resid_mid, mlp_in, mlp_act, mlp_out
    source.dtype = "float32"  # of the stored rows: float32 | bfloat16
    source.batch_size = 0  # contexts a forward pass, over all devices; 0: as many as fit
    source.shard_contexts = 512  # contexts a file of the store; a multiple of batch_size (with 0: of a power of two)

    c.lm = ml_collections.ConfigDict()
    c.lm.path = "models/stdlib-neox-4x128"  # folder in Hugging Face layout, or a hub id: a family of activations/language_model/families.py
    c.lm.revision = ""  # commit, tag or branch of a hub id; "": the default branch. The run records the commit
    c.lm.dtype = "float32"  # of parameters and forward pass: float32 | bfloat16
    c.lm.model_parallel = 1  # devices that share a copy of the model; batches are cut over the others
    c.lm.config_from = ""  # folder with the model's config.json, for --plan without the hub; "": that of path

    c.sae = sae = ml_collections.ConfigDict()
    sae.variant = "topk"  # a key of saes.variants.VARIANTS
    sae.n_features = 512  # dictionary size F
    sae.k = 16  # active features a token (target L0 of every variant); 1 to F
    # topk, batchtopk, matryoshka
    sae.aux_k = 0  # dead features modelling the residual; 0: half the width (Gao et al. 2024)
    sae.aux_weight = 1 / 32  # of the auxiliary loss (Gao et al. 2024)
    sae.aux_units = "variance"  # "variance": both errors as shares of what they are held against (Gao et al.'s code); "error": as they are
    sae.dead_after_tokens = 200_000  # dead in training after so many tokens without firing; 10 M in runs of 1 B
    sae.threshold_decay = 0.999  # batchtopk, matryoshka: of the moving average that becomes the threshold for inference
    sae.prefix_fractions = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32)  # matryoshka: groups, as shares of F (Bussmann et al. 2025)
    # jumprelu, gated, l1: in the scale of training, where E‖x‖ = √D
    sae.sparsity = 0.0  # coefficient to begin with; 0: the variant's own (saes/variants.py). A controller takes it from there
    sae.sparsity_warmup_fraction = 0.2  # of the steps: coefficient from 0, target L0 falling to k
    sae.control_rate = 0.02  # integral gain a step, on the log of the coefficient
    sae.control_gain = 1.0  # proportional gain; 0 and control_rate 0: the coefficient is fixed, whatever L0 comes out
    sae.jump_threshold = 0.01  # jumprelu: initial threshold, as a share of √D
    sae.jump_bandwidth = 0.01  # jumprelu: width of the straight-through rectangle, as a share of √D
    sae.pre_act_weight = 0.0  # jumprelu: loss that revives dead features

    c.train = train = ml_collections.ConfigDict()
    train.tokens = 2_500_000  # seen by each SAE, repeats included; rounded up to whole dispatches
    train.batch_size = 512  # activations a step
    train.lr = 0.0  # peak; 0: 2e-4·√(2^14/F) (dictionary_learning)
    train.warmup_fraction = 0.05  # of the steps,
    train.warmup_steps = 1000  # but never more than so many
    train.decay_fraction = 0.2  # of the steps at the end, linear to 0
    train.adam_b1 = 0.9
    train.adam_b2 = 0.999
    train.adam_eps = 1e-8
    train.clip_norm = 1.0  # global gradient norm, of each seed alone
    train.lanes = 0  # SAEs in one vmap, the groups in turn; 0: 2 on CPU, as many as memory holds on an accelerator
    train.seeds_at_once = 0  # SAEs trained at a time, the others after them with the same result; 0: as many as memory holds
    train.steps_per_dispatch = 16  # steps scanned on the device between two looks from the host
    train.checkpoint_every = 800  # steps; a multiple of steps_per_dispatch
    train.eval_at_tokens = ()  # tokens after which a dictionary is kept for p̂ against tokens; (): at doublings
    train.snapshots = 8  # dictionaries kept along training: untrained, then at doublings up to the end; at least 7
    train.eval_rows = 32_768  # held-out rows for each SAE's explained variance and L0 at the end
    train.data = "activations"  # "gaussian": rows drawn with their mean and covariance instead, a null model
    train.shuffle_block = 256  # rows read together from disk; whole blocks are shuffled, then the rows of a window
    train.shuffle_window = 262_144  # rows among which the order is uniform; 0: all rows
    train.export_sparsify = False  # True: also in sparsify's format, below train/sparsify (topk alone)
    train.halves = False  # SAEs at even places see one half of the documents, the others the other half

    c.stability = stability = ml_collections.ConfigDict()
    stability.dictionaries = ""  # a dictionaries.json from elsewhere; "": the one that stage `train` writes
    stability.theta = 0.7  # cosine from which a feature counts as the same (the paper's)
    stability.epsilon = 0.05  # stable: p̂ ≥ 1−ε; unstable: p̂ ≤ ε (the paper's)
    stability.confidence = 0.95  # of every interval
    stability.block_size = 512  # rows of one dictionary held against all of another at a time
    stability.rare_firings = 100  # rare: fires less often than this on the evaluation tokens
    stability.null_draws = 5  # independent rotations of every dictionary
    stability.null_seeds = 16  # SAEs, the first so many, among which null models are compared
    stability.span_rank = 16  # dimensions of the unstable features' span inside which a null model rotates
    stability.thetas = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of the θ curve
    stability.epsilons = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)  # of the ε sweep
    stability.top_rows = 8  # top-activating tokens kept per feature
    stability.curve_rows = 16_384  # evaluation rows for the dictionaries along training
    stability.curve_seeds = 16  # SAEs, the first so many, that are compared along training

    c.sensitivity = sensitivity = ml_collections.ConfigDict()
    sensitivity.pairs = (
        0  # pairs of SAEs for one-to-one matching and activations: each with the next so many; 0: all of up to 21 SAEs, of more the next 5
    )
    sensitivity.candidates = 4  # most similar features of another SAE by decoder with which activations are correlated
    sensitivity.rows = 16_384  # evaluation rows for correlations
    sensitivity.neighbours = 10  # nearest in the own dictionary (crowding)
    sensitivity.exact_features = 4096  # up to so many features one-to-one matching is exact, above by auction with its gap

    c.subspace = subspace = ml_collections.ConfigDict()
    subspace.ranks = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)  # r of the subspaces compared; those ≥ width are left out
    subspace.headline_rank = 16  # one of ranks, far below the width
    subspace.subsamples = 20  # draws of equally many features from each set
    subspace.min_features = 20  # a set with fewer live features in any seed is not measured

    c.atlas = atlas = ml_collections.ConfigDict()  # tuned on worlds of known atoms: configs/synthetic_causes.py
    atlas.seeds = 16  # SAEs, the first so many, in which subspaces are looked for
    atlas.min_rank = 4  # dimensions of a subspace; what 3 features span counts as split or absorbed
    atlas.max_rank = 0  # 0: a third of the width
    atlas.capture = 0.7  # share of a feature's squared norm inside from which it lies in a subspace
    atlas.density = 1.5  # different directions for each dimension, at least; features that each reappear fill a plane with 1
    atlas.apart = 0.9  # features in a subspace for each that is at least half in it
    atlas.gap = 2.5  # its weakest direction must be so many times as strong as the strongest outside, among the features in it
    atlas.most_own = 0.8  # of what holds a feature in a subspace this much may be its own direction
    atlas.agreement = 0.7  # overlap from which subspaces of the two halves of the seeds are one
    atlas.starts = 16  # features from which is searched, at a time
    atlas.patience = 2  # as often without a find, and the search ends
    atlas.directions = 512  # of wider rows so many leading directions are searched
    atlas.draws = 59  # rotations of every dictionary against which agreement is tested: its p-value is at least 1/60
    atlas.null_draws = 4  # rotations of every dictionary in which subspaces are looked for in the same way
    atlas.rows = 16_384  # evaluation rows for what subspaces add to the reconstruction
    atlas.top_rows = 8  # tokens kept per subspace, on which it adds most

    c.diagnosis = diagnosis = ml_collections.ConfigDict()
    diagnosis.explained = 0.9  # share of a feature's squared norm that up to 3 features of another seed must hold: split or absorbed
    diagnosis.in_seeds = 0.5  # in at least this share of the other seeds
    diagnosis.chance = 0.05  # inside a subspace in which that happens by chance more often, nothing is called split
    diagnosis.settled = 0.9  # cosine with its own direction at half of the tokens, below which a feature is under-trained

    c.transfer = transfer = ml_collections.ConfigDict()
    transfer.splits = 2  # cuts of the seeds into halves; from each the other is judged
    transfer.seeds = 16  # SAEs, the first so many
    transfer.features = 20_000  # of a half that are learned from or judged

    c.function = function = ml_collections.ConfigDict()  # what features do for the reconstruction
    function.seeds = 16  # SAEs, the first so many; of figures by label in statistics and explanations too
    function.rows = 1_000_000  # evaluation rows, at most, evenly spaced
    function.ratio = 4  # unstable features that are removed for each stable one (the paper's)
    function.draws = 20  # of features matched to the unstable ones
    function.splits = 2  # cuts of the seeds into halves, each labelled by the other
    function.bins = 10  # of equally many features by firing rate
    function.refill_rows = 8192  # evaluation rows for removal before the selection, when in topk others move up

    c.splice = splice = ml_collections.ConfigDict()  # what features do for the language model's predictions
    splice.seeds = 16  # SAEs, the first so many
    splice.tokens = 4096  # evaluation rows, about, in whole contexts
    splice.draws = 3  # of N stable and function.ratio·N unstable features
    splice.singles = 9  # features of every SAE whose removal alone is measured, of all labels and firing rates; 0: none

    c.statistics = statistics = ml_collections.ConfigDict()  # of single features
    statistics.top_contexts = 16  # kept per feature, in which it is most active; one token of each
    statistics.samples = 16  # tokens kept per feature, at random among those on which it fires in every other context
    statistics.shuffled_tokens = 65_536  # evaluation rows whose contexts are put in random order
    statistics.table_bytes = 2**31  # memory for counts of features by tokens; larger tables are made part by part
    statistics.surface = 0.5  # surface-form score from which a feature counts as one of surface form
    statistics.draws = 1  # of random tokens for the null of the entropy over tokens

    c.explanations = explanations = ml_collections.ConfigDict()  # of a sample of features
    explanations.model = ""  # of an OpenAI-compatible endpoint (OPENAI_BASE_URL, OPENAI_API_KEY); "": rules on the text of tokens, offline
    explanations.pairs = 40  # of a stable and an unstable feature of one SAE that fire about equally often
    explanations.contexts = 8  # from which a feature is explained
    explanations.candidates = 10  # other contexts in which it is asked whether the feature fires; in half of them it does
    explanations.context_tokens = 24  # tokens of a context before the one in question; a third as many behind
    explanations.at_once = 4  # questions under way
    explanations.timeout = 60.0  # seconds for an answer
    explanations.retries = 4  # of a question that was not answered, with growing pauses
    explanations.max_tokens = 400  # of an answer
    explanations.price_in = 0.0  # per million tokens of questions, in the currency of most_cost; 0: not shown
    explanations.price_out = 0.0  # per million tokens of answers
    explanations.most_cost = 0.0  # of all answers, kept ones too, above which nothing more is asked; 0: no bound

    c.report = report = ml_collections.ConfigDict()
    report.examples = 6  # stable and as many unstable features shown with contexts
    report.contexts = 5  # contexts a feature
    report.table_contexts = 3  # contexts a feature in the table of features
    report.context_tokens = 14  # tokens before the highlighted one; half as many behind
    report.png_scale = 2.0  # pixels per point of the PNG copies

    c.claims = claims = ml_collections.ConfigDict()
    claims.min_seeds = 4  # below, every claim is undecided
    claims.min_features = 50  # live stable and live unstable features, in all seeds together
    claims.c1_chance = 0.05  # C1 holds only if the strongest null's p̂ stays below this
    claims.c1_difference = 0.5  # C1: split-half difference of p̂, stable less unstable, whole interval above this
    claims.c2_difference = 0.0  # C2: N stable less ratio·N unstable features, in explained variance lost and in cross-entropy gained, and stable less unstable part of what is explained, whole intervals above this
    claims.c3_ratio = 1.0  # C3 (rate part): stable over unstable firing rate, whole interval above this
    claims.c3_surface = (
        0.0  # C3 (surface part): share of surface-form features among unstable less among stable ones, whole interval above this
    )
    claims.c4_excess = 0.0  # C4: overlap between seeds over the strongest null, whole interval above this
    claims.c5_span = 0.9  # C5: overlaps of the unstable latents' span, and the share of free atoms found, whole intervals above this
    claims.c5_found = 0.5  # C5: share of the block's atoms found, whole interval below this
    claims.c6_p = 0.1  # C6: mean p̂ of the headline pool against fresh seeds less that of a single SAE, whole interval above this
    claims.c6_between = 0.2  # C6: p̂ between pools of disjoint groups less that between single SAEs, whole interval above this
    claims.c6_explained = -0.01  # C6: explained variance of the headline pool less that of a single SAE, whole interval above this
    claims.c7_excess = 0.0  # C7: AUROC of decoder rows over the better of frequency and crowding alone, whole interval above this
    claims.plateau_rise = 0.02  # C2 to C5: undecided unless the interval of p̂'s change per doubling of training tokens lies within ± this
    return c
