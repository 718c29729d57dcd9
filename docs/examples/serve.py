"""Several processes that answer requests, each with a model and threads of its own."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import nn

import fastconv as fc
import fastconv.torch as ft

WORKERS = 2


def load() -> None:
    """What a worker does once, before its first request."""
    global model
    torch.set_num_threads(max(1, fc.get_num_threads() // WORKERS))
    torch.manual_seed(0)  # in place of a file with the weights
    model = ft.convert(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 3, 3)).eval())
    for _ in range(2):  # the first call loads the engine, the second packs the weights
        answer(np.zeros((1, 3, 64, 64), np.float32))


def answer(image: np.ndarray) -> np.ndarray:
    """The answer to a request."""
    with torch.inference_mode():
        return model(torch.from_numpy(image)).numpy()


if __name__ == "__main__":
    images = [np.full((1, 3, 64, 64), number, np.float32) for number in range(8)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=spawn, initializer=load) as workers:
        for result in workers.map(answer, images):
            print(result.shape, result.dtype)
