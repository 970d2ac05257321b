"""Latent generator of a prototype family: a conditional variational autoencoder.

Encoder q(z | species, geometry), decoder p(species | z, c) p(geometry | z, c, species) for wanted
properties c, and a predictor c(z). Loss (Gomez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018) for
autoencoder and predictor):

    L = CE(species) + |geometry error|^2 + beta KL(q || N(0, 1)) + w_p |c(z) - c|
        + w_c |q(decoded) - z|^2

The last term, latent consistency, asks that what is decoded is encoded where it came from. For
wanted properties z is drawn from N(0, 1) and led to c(z) = c by gradient steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from qdgnn_design.prototype import Array, Integers, Prototype

_GUIDANCE_STEPS = 30
_GUIDANCE_RATE = 0.1


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Size and training of a generator."""

    latent: int = 16
    hidden: int = 128
    beta: float = 0.02
    """Weight of the Kullback-Leibler divergence."""
    predictor: float = 1.0
    """w_p."""
    consistency: float = 0.1
    """w_c."""
    epochs: int = 80
    batch: int = 128
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latent", "hidden", "epochs", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be larger than 0, got {getattr(self, name)}")


class Generator(nn.Module):
    """Networks of the autoencoder; wanted properties are scaled to mean 0 and width 1.

    Args:
        prototype: The family.
        n_targets: Properties.
        config: Sizes.
    """

    allowed: Tensor
    center: Tensor
    width: Tensor

    def __init__(self, prototype: Prototype, n_targets: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.n_sites, self.n_elements = prototype.allowed.shape
        n_species, n_geometry = prototype.allowed.size, len(prototype.mean)
        self.register_buffer("allowed", torch.as_tensor(prototype.allowed))
        self.register_buffer("center", torch.zeros(n_targets))
        self.register_buffer("width", torch.ones(n_targets))
        latent, hidden = config.latent, config.hidden
        self.latent = latent
        self.encoder = _network(n_species + n_geometry, hidden, 2 * latent)
        self.species = _network(latent + n_targets, hidden, n_species)
        self.geometry = _network(latent + n_targets + n_species, hidden, n_geometry)
        self.predictor = _network(latent, hidden, n_targets)

    def encode(self, species: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, both (n, latent).

        Args:
            species: (n, n_sites, n_elements), shares of the elements.
            geometry: (n, n_geometry).
        """
        mean, log_variance = self.encoder(torch.cat([species.flatten(1), geometry], 1)).chunk(2, 1)
        return mean, log_variance.clamp(-8.0, 8.0)

    def species_logits(self, z: Tensor, wanted: Tensor) -> Tensor:
        """(n, n_sites, n_elements), -inf for elements that the family lacks on a site."""
        logits = self.species(torch.cat([z, wanted], dim=1))
        shaped: Tensor = logits.unflatten(1, (self.n_sites, self.n_elements))
        return shaped.masked_fill(~self.allowed, -torch.inf)

    def decode_geometry(self, z: Tensor, wanted: Tensor, species: Tensor) -> Tensor:
        """(n, n_geometry)."""
        values: Tensor = self.geometry(torch.cat([z, wanted, species.flatten(1)], dim=1))
        return values

    def guided(self, wanted: Tensor, generator: torch.Generator) -> Tensor:
        """Latent vectors near the wanted properties, (n, latent).

        Args:
            wanted: (n, n_targets), scaled.
            generator: Of the random start.
        """
        z = torch.randn(len(wanted), self.latent, generator=generator)
        for _ in range(_GUIDANCE_STEPS):
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():  # also where the caller wants none
                miss = (self.predictor(z) - wanted).square().sum() + 0.01 * z.square().sum()
            (slope,) = torch.autograd.grad(miss, z)
            z = z - _GUIDANCE_RATE * slope
        return z.detach()


def train_generator(
    prototype: Prototype, species: Integers, geometry: Array, values: Array, config: GeneratorConfig
) -> Generator:
    """Fit the autoencoder to the members of a family.

    Args:
        prototype: The family.
        species: (n, n_sites), of `Prototype.encode`.
        geometry: (n, n_geometry).
        values: (n, n_targets), properties in their units, finite.
        config: Sizes and training.

    Raises:
        ValueError: If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("values of all members must be finite, got some that are not")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Generator(prototype, values.shape[1], config)
        wanted = torch.as_tensor(values, dtype=torch.float32)
        model.center.copy_(wanted.mean(dim=0))
        model.width.copy_(wanted.std(dim=0).clamp(min=1e-6))
        data = (
            one_hot(torch.as_tensor(species), model.n_elements).float(),
            torch.as_tensor(geometry, dtype=torch.float32),
            (wanted - model.center) / model.width,
        )
        _fit(model, data, config)
    return model.eval()


def _fit(model: Generator, data: tuple[Tensor, Tensor, Tensor], config: GeneratorConfig) -> None:
    steps = config.epochs * -(-len(data[0]) // config.batch)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(data[0])).split(config.batch):
            species, geometry, wanted = (part[rows] for part in data)
            optimizer.zero_grad()
            autoencoder_loss(model, species, geometry, wanted, config).backward()
            optimizer.step()
            schedule.step()


def autoencoder_loss(
    model: Generator, species: Tensor, geometry: Tensor, wanted: Tensor, config: GeneratorConfig
) -> Tensor:
    """The loss of the module's docstring, a scalar."""
    mean, log_variance = model.encode(species, geometry)
    z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
    logits = model.species_logits(z, wanted)
    decoded = model.decode_geometry(z, wanted, species)
    labels = species.argmax(dim=2).flatten()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
    again, _ = model.encode(logits.softmax(dim=2), decoded)
    loss: Tensor = (
        cross_entropy(logits.flatten(0, 1), labels)
        + (decoded - geometry).square().mean()
        + config.beta * divergence
        + config.predictor * (model.predictor(z) - wanted).abs().mean()
        + config.consistency * (again - z).square().mean()
    )
    return loss


def sample(
    model: Generator, wanted: Array, n: int, generator: torch.Generator
) -> tuple[Integers, Array, Tensor]:
    """Species (n, n_sites), geometry (n, n_geometry), and log p(species) (n,) with its gradient.

    Args:
        model: A trained generator.
        wanted: (n_targets,) in the properties' units.
        n: Samples.
        generator: Of all random numbers.
    """
    scaled = (torch.as_tensor(wanted, dtype=torch.float32) - model.center) / model.width
    scaled = scaled.expand(n, -1)
    z = model.guided(scaled, generator)
    logits = model.species_logits(z, scaled)
    chances = logits.softmax(dim=2).flatten(0, 1)
    species = torch.multinomial(chances, 1, generator=generator).view(n, -1)
    log_chance = logits.log_softmax(dim=2).gather(2, species[:, :, None]).sum(dim=(1, 2))
    with torch.no_grad():
        shares = one_hot(species, model.n_elements).float()
        geometry = model.decode_geometry(z, scaled, shares)
    return species.numpy(), geometry.double().numpy(), log_chance


def _network(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
        nn.Linear(hidden, n_out),
    )  # fmt: skip
