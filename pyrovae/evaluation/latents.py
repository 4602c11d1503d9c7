"""What the latent layers do."""

from torch import Tensor, nn

from pyrovae.data.rows import Rows
from pyrovae.inference.modules import evaluation_mode
from pyrovae.inference.objectives import ELBO
from pyrovae.programs.conditionals import share_constants

IMAGES_AT_ONCE = 1000


def kl_by_layer(model: nn.Module, guide: nn.Module, x: Tensor | Rows, context: Tensor | None = None) -> dict[str, float]:
    r"""The divergence of each latent layer from its prior, in nats per image, one sample of the layers above per image.

    .. math:: E_q[\operatorname{KL}(q(z_l | \cdot) \| p(z_l | z_{l+1}))]

    In closed form where the guide allows it, else sampled. Sønderby et al. (2016), figure 5. A layer near zero is unused.

    Args:
        model: the generative program.
        guide: one of ``GUIDES``.
        x: images ``(N, D)``, in memory or not.
        context: of each image ``(N, C)``, for a conditional model.
    """
    columns = [column for column in (x, context) if column is not None]
    total: dict[str, Tensor] = {}
    with evaluation_mode(), share_constants():
        for start in range(0, len(x), IMAGES_AT_ONCE):
            rows = [column[start : start + IMAGES_AT_ONCE] for column in columns]
            _, divergences = ELBO(analytic_kl=bool(guide.analytic_kl)).terms(model, guide, *rows)
            total = {site: total.get(site, 0) + each for site, each in divergences.items()}
    return {site: (total[site] / len(x)).item() for site in sorted(total)}
