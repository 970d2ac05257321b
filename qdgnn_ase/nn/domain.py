"""The domain of a property model: elements that training had, and nearness of the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_DOMAIN = 30
"""Structures that a domain is taken from, at least."""

NEEDED = 0.95
"""An element that so large a part of the structures has is one that an added head needs."""


class Domain(nn.Module):
    """Where a model was trained.

    Buffers: ``counts`` (n_elements,) sites of each element in training; ``center`` (hidden,),
    ``whitening`` (hidden, hidden) and ``limit`` () of the embedding.

    Args:
        n_elements: Size of the element table, atomic number 0 included.
        hidden: Width of the embedding.
    """

    counts: Tensor
    center: Tensor
    whitening: Tensor
    limit: Tensor

    def __init__(self, n_elements: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(n_elements, dtype=torch.int64))
        self.register_buffer("center", torch.zeros(hidden))
        self.register_buffer("whitening", torch.zeros(hidden, hidden))
        self.register_buffer("limit", torch.ones(()))

    def set_domain(self, embedding: Tensor, share: float = 0.99, shrinkage: float = 0.1) -> None:
        """Take the domain from embeddings of structures like those of training.

        With fewer than `MIN_DOMAIN` structures nothing is called far away.

        Args:
            embedding: (n_structures, hidden).
            share: Part of them that is in the domain.
            shrinkage: Of the covariance towards its mean diagonal.

        Raises:
            ValueError: If an embedding is not finite.
        """
        if not bool(torch.isfinite(embedding).all()):
            raise ValueError(
                "embeddings must be finite, got NaN or inf: the training diverged; lower its "
                "learning rate"
            )
        if len(embedding) < MIN_DOMAIN:
            self.limit.fill_(torch.inf)
            return
        self.center.copy_(embedding.mean(dim=0))
        covariance = torch.cov(embedding.T.double())
        width = covariance.diagonal().mean()
        identity = torch.eye(len(covariance), dtype=covariance.dtype)
        covariance = (1 - shrinkage) * covariance + shrinkage * width * identity
        self.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
        self.limit.copy_(self.domain_distance(embedding).quantile(share))

    def domain_distance(self, embedding: Tensor) -> Tensor:
        """Mahalanobis distance from the training data, (n_structures,)."""
        distance: Tensor = ((embedding - self.center) @ self.whitening).norm(dim=1)
        return distance

    def in_domain(self, embedding: Tensor) -> Tensor:
        """Whether structures are within the distance that nearly all of training are, bool."""
        return self.domain_distance(embedding) <= self.limit


class HeadDomain(Domain):
    """Domain of a head that was added to a trained model, on structures of its own.

    Buffer ``needed`` (n_elements,): elements that nearly every structure of its training had.
    Measured sets are often of one kind of material, such as conductors of lithium.
    """

    needed: Tensor

    def __init__(self, n_elements: int, hidden: int) -> None:
        super().__init__(n_elements, hidden)
        self.register_buffer("needed", torch.zeros(n_elements, dtype=torch.bool))

    def set_elements(self, sites: Tensor) -> None:
        """Take elements from those of training: sites (n_structures, n_elements)."""
        present = sites > 0
        self.counts.copy_(sites.sum(dim=0))
        self.needed.copy_(present.double().mean(dim=0) >= NEEDED)

    def knows(self, amounts: Tensor) -> bool:
        """Whether a composition (n_elements,) has elements of training only, and all needed."""
        unseen = (amounts > 0) & (self.counts == 0)
        missing = self.needed & (amounts == 0)
        return not bool((unseen | missing).any())
