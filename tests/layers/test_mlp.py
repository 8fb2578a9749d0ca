from __future__ import annotations

import numpy as np
import torch

from multidomain.layers.mlp import MLP, HiddenLayers


def _relu_layers(layers, x: np.ndarray) -> np.ndarray:
    for layer in layers:
        x = np.maximum(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
    return x


def test_hidden_layers_have_a_relu_each_and_a_network_a_linear_output_behind_them():
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    hidden, mlp = HiddenLayers(in_features=3, hidden=[5, 2]), MLP(in_features=3, hidden=[5, 2], out_features=4)
    for layer in (*hidden.layers, *mlp.layers):
        torch.nn.init.normal_(layer.bias)
    assert hidden.features == 2
    np.testing.assert_allclose(hidden(x).detach(), _relu_layers(hidden.layers, x.numpy()), rtol=1e-5, atol=1e-6)
    last = mlp.layers[-1]
    h = _relu_layers(mlp.layers[:-1], x.numpy())
    expected = h @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    np.testing.assert_allclose(mlp(x).detach(), expected, rtol=1e-5, atol=1e-6)


def test_no_hidden_layers_give_the_input_back():
    x = torch.randn(6, 3)
    hidden = HiddenLayers(in_features=3, hidden=[], dropout=0.5)
    assert hidden.features == 3
    assert torch.equal(hidden(x), x)


def test_hidden_layers_keep_the_scale_of_what_they_read():
    torch.manual_seed(0)
    h = HiddenLayers(in_features=400, hidden=[400, 400])(torch.randn(500, 400))
    assert 0.8 < h.square().mean().item() < 1.25  # He: the second moment passes a ReLU layer unchanged


def test_dropout_is_for_training_alone():
    hidden = HiddenLayers(in_features=3, hidden=[50], dropout=0.5)
    x = torch.randn(6, 3)
    assert not torch.equal(hidden(x), hidden(x))
    hidden.eval()
    assert torch.equal(hidden(x), hidden(x))
