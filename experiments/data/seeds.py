"""The seeds of a study, and what they decide."""

from experiments.fields import check, config, field


@config("")
class Seeds:
    """Who is trained."""

    seeds: tuple[int, ...] = field(
        default=(8,),
        doc="one number: a count, seeds 0, 1, …; several: the seeds themselves. At least 2; 21 for a primary cell",
        ge=0,
        lt=2**32,
        least=1,
        distinct=True,
        says="a count, or distinct seeds from 0 to 2³²−1",
    )
    init_seed: int = field(
        default=-1,
        doc="initialisation: -1: each SAE's by its seed; else this one for all (b_dec follows the data: a first batch's median)",
        ge=-1,
        lt=2**32,
    )
    data_seed: int = field(
        default=0,
        doc="order of activations: this one for all, who then share the batch in memory; -1: each SAE's by its seed (S batches)",
        ge=-1,
        lt=2**32,
    )

    def check(self) -> None:
        check(len(self.list) >= 2, "seeds", self.seeds, "stability compares at least 2 seeds")

    @property
    def list(self) -> tuple[int, ...]:
        """One number is a count: seeds 0 to that less one; several are the seeds themselves."""
        return tuple(range(self.seeds[0])) if len(self.seeds) == 1 else self.seeds

    @property
    def order(self) -> int:
        """That of the order in which rows are drawn where one is needed for all SAEs."""
        return max(self.data_seed, 0)
