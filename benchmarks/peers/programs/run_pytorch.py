"""A factorization machine in PyTorch as its users write it: embeddings, mini-batches, Adam."""

import torch
from task import Predict, Ratings, Task, run
from torch import nn


class FactorizationMachine(nn.Module):
    """A bias, and a linear weight and factors for each customer and video."""

    def __init__(self, features: int, rank: int, init_sigma: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.linear = nn.Embedding(features, 1)
        self.factors = nn.Embedding(features, rank)
        nn.init.zeros_(self.linear.weight)
        nn.init.normal_(self.factors.weight, std=init_sigma)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Score rows of feature indices, shape ``(records, 2)``."""
        factors = self.factors(features)
        interactions = factors.sum(1).square() - factors.square().sum(1)
        return self.bias + self.linear(features).sum((1, 2)) + 0.5 * interactions.sum(1)


def fit(train: Ratings, task: Task) -> Predict:
    """Fit with the rates and decays of each group of parameters."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    settings = task.settings
    model = FactorizationMachine(
        task.customers + task.videos, task.rank, settings["factors_init_sigma"]
    )
    optimizer = torch.optim.Adam(
        {"params": parameters, "lr": settings[f"{name}_lr"], "weight_decay": settings[f"{name}_wd"]}
        for name, parameters in (
            ("bias", [model.bias]),
            ("linear", model.linear.parameters()),
            ("factors", model.factors.parameters()),
        )
    )
    features, stars = as_features(train, task), torch.as_tensor(train.stars)
    for _ in range(task.iterations):
        for batch in torch.randperm(len(stars)).split(settings["mini_batch_size"]):
            optimizer.zero_grad()
            loss = 0.5 * (model(features[batch]) - stars[batch]).square().mean()
            loss.backward()
            optimizer.step()
    return lambda ratings: model(as_features(ratings, task)).detach().numpy()


def as_features(ratings: Ratings, task: Task) -> torch.Tensor:
    """Return feature indices, customers before videos, of shape ``(ratings, 2)``."""
    customers, videos, _ = ratings
    return torch.stack([torch.as_tensor(customers), torch.as_tensor(task.customers + videos)], 1)


if __name__ == "__main__":
    run(fit)
