"""Ordinary modules, each with what has made building for weights go wrong somewhere."""

from __future__ import annotations

import functools
import math
import threading

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize


class Tied(nn.Module):
    """Input and output embedding are one parameter; so are two of a list."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(7, 4, padding_idx=0)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.emb.weight
        shared = nn.Parameter(torch.randn(3))
        self.several = nn.ParameterList([shared, nn.Parameter(torch.randn(3)), shared])
        self.by_name = nn.ParameterDict({"a": self.several[1]})
        self.also = self.emb


class TiedByMemory(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = nn.Parameter(self.emb.weight)


class ConstantTables(nn.Module):
    """Non-persistent buffers and plain attributes, all constant."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)), persistent=False)
        self.register_buffer("kept", torch.arange(3.0))
        self.angles = torch.arange(8.0).cos()
        self.nested = {"levels": [torch.linspace(0, 1, 5), (torch.eye(2),)]}
        self.rates = [x.item() for x in torch.linspace(0, 0.1, 3)]
        self.drop = nn.Dropout(0.5)


class RandomTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("projection", torch.randn(4, 4), persistent=False)


class RandomAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.hidden = {"deep": [torch.rand(3)]}


class RandomNumber(nn.Module):
    """A Python number that was a random draw."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.offset = torch.rand(()).item()


class RandomTableForked(nn.Module):
    """The draw leaves no trace in the generator."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        with torch.random.fork_rng(devices=[]):
            self.projection = torch.randn(4, 4)


class RandomTableUnseen(nn.Module):
    """Drawn where the building thread does not see it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        drawn = []
        thread = threading.Thread(target=lambda: drawn.append(torch.randn(4, 4)))
        thread.start()
        thread.join()
        self.projection = drawn[0]


class RandomNumberInside(nn.Module):
    """Drawn by a function that does not have it in its name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.choice = functional.gumbel_softmax(torch.zeros(8), hard=True).argmax().item()


class RandomTableFirst(nn.Module):
    """Drawn before anything is skipped, so that skipping can't move it."""

    def __init__(self):
        super().__init__()
        self.projection = torch.randn(4, 4)
        self.fc = nn.Linear(4, 4)


class OwnGenerator(nn.Module):
    """An explicit generator is at another place if a draw from it is skipped."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.empty(4, 4))
        nn.init.normal_(self.w, generator=generator)
        nn.init.xavier_uniform_(self.w, generator=generator)
        nn.init.trunc_normal_(self.w, generator=generator)
        nn.init.orthogonal_(self.w, generator=generator)
        self.fc = nn.Linear(4, 4)
        self.projection = torch.randn(4, 4, generator=generator)


class DerivedAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = self.fc.weight.detach().abs().max()


class DerivedNumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = float(self.fc.weight.detach().abs().max())


class DerivedBranch(nn.Module):
    """Python code decides by an initial value."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)
        self.sign = 1 if self.fc.weight[0, 0] > 0 else -1


class DerivedByWriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table = torch.zeros(2, 4, 4)
        self.table[1] = self.fc.weight.detach()


class DerivedAndSaved(nn.Module):
    """Everything that comes of the initial values is saved, and so overwritten."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("kept", self.fc.weight.detach().abs().amax(0))
        self.other = nn.Linear(4, 4)
        with torch.no_grad():
            self.other.weight[1] = self.fc.weight[0]
            self.other.bias.copy_(self.fc.bias).mul_(2)
        self.table = torch.eye(3)


class DerivedThroughNumpy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table = torch.from_numpy(self.fc.weight.detach().numpy().copy())


class ViewOfParameter(nn.Module):
    """An attribute that shows a parameter's memory, and one that shows a constant one's."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.view = self.fc.weight.data[:2]


class ViewOfConstant(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.view = self.scale.data[:2]


class Flat(nn.Module):
    """Parameters that are parts of one flat parameter."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Parameter(torch.zeros(12))
        self.part = nn.Parameter(self.flat.data[:4].view(2, 2))
        self.fc = nn.Linear(2, 2)


class HookedTable(nn.Module):
    """A hook closes over a random tensor."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        noise = torch.randn(4)
        self.fc.register_forward_hook(lambda _module, _args, output: output + noise)


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.calls = 0
        self.fc.register_forward_hook(self.count)
        self.fc.weight.register_hook(lambda grad: grad * 2)
        self.fc.bias.requires_grad = False
        self.fc.weight.no_decay = True
        self.by_hand = [self.fc.weight, {"bias": self.fc.bias}]

    def count(self, *_):
        self.calls += 1


class HiddenModule(nn.Module):
    """A frozen random target that the state dict is not to have."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.target = [nn.Linear(4, 4)]


@functools.lru_cache
def sinusoids(length: int, width: int) -> torch.Tensor:
    position = torch.arange(length).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


class CachedTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(5, 8)
        self.register_buffer("positions", sinusoids(6, 8), persistent=False)


class OwnReset(nn.Module):
    """Draws outside torch.nn.init, into what is saved."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.empty(4, 4))
        self.token = nn.Parameter(torch.randn(1, 4))
        self.register_buffer("kept", torch.rand(2))
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            self.weight.normal_(0, 0.02)
            self.fc.weight.data.normal_(0, 0.02)


class EveryInit(nn.Module):
    def __init__(self):
        super().__init__()
        for name in (
            "uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_",
            "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "eye_", "ones_", "zeros_",
        ):  # fmt: skip
            weight = nn.Parameter(torch.empty(5, 3))
            getattr(nn.init, name)(weight)
            self.register_parameter(name, weight)
        self.narrow = nn.Parameter(torch.empty(5, 3))
        nn.init.trunc_normal_(self.narrow, std=1.0, a=-0.1, b=0.1)
        self.sparse = nn.Parameter(torch.empty(5, 3))
        nn.init.sparse_(self.sparse, 0.2)
        self.of_data = nn.Parameter(torch.empty(5, 3))
        nn.init.xavier_uniform_(self.of_data.data)
        self.dirac = nn.Parameter(torch.empty(3, 3, 3))
        nn.init.dirac_(self.dirac)
        self.before = nn.Parameter(nn.init.trunc_normal_(torch.empty(5, 3)))


class CustomLoading(nn.Module):
    """Version 2 keeps its weight transposed, and got a bias."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.weight = nn.Parameter(torch.zeros(3, 2))
        self.bias = nn.Parameter(torch.full((3,), 0.5))
        self.tied = self.weight

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version", 1) < 2:
            state_dict[prefix + "weight"] = state_dict[prefix + "weight"].t() * 2
            state_dict[prefix + "tied"] = state_dict[prefix + "weight"]
            state_dict.setdefault(prefix + "bias", torch.ones(3))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class Around(nn.Module):
    """Holds a module of another way of loading beside ordinary ones."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.custom = CustomLoading()


class ExtraState(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.vocabulary = {}

    def get_extra_state(self):
        return {"vocabulary": self.vocabulary}

    def set_extra_state(self, state):
        self.vocabulary = state["vocabulary"]
        self.vocabulary["loaded"] = True


class VisionTransformer(nn.Module):
    """As timm writes them."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos = nn.Parameter(torch.empty(1, 5, 8))
        self.drop_rates = [x.item() for x in torch.linspace(0, 0.1, 2)]
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        self.register_buffer("index", torch.arange(5), persistent=False)
        nn.init.trunc_normal_(self.pos, std=0.02)
        nn.init.normal_(self.cls, std=1e-6)
        self.apply(self.init)

    @staticmethod
    def init(module):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Gpt(nn.Module):
    """As nanoGPT is written: tied head, causal mask, scaled projections."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            self.blocks.append(
                nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
            )
        self.head = nn.Linear(8, 11, bias=False)
        self.wte.weight = self.head.weight
        self.register_buffer("mask", torch.tril(torch.ones(6, 6)), persistent=False)
        self.apply(self.init)
        for name, parameter in self.named_parameters():
            if name.endswith("3.weight"):
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(4))

    @staticmethod
    def init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, 0.0, 0.02)


class Residual(nn.Module):
    """As torchvision writes them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, groups=2)
        self.norm = nn.GroupNorm(2, 4)
        self.fc = nn.Linear(4, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(module.weight, 1)
        nn.init.zeros_(self.bn1.weight)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


def parametrized() -> nn.Module:
    module = nn.Linear(3, 3)
    parametrize.register_parametrization(module, "weight", Symmetric())
    return module


def several_of_torch() -> nn.Module:
    return nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2, kdim=4, vdim=4, add_bias_kv=True),
            "lstm": nn.LSTM(4, 3, num_layers=2, bidirectional=True, proj_size=2),
            "gru": nn.GRU(4, 3),
            "cell": nn.LSTMCell(4, 3),
            "transpose": nn.ConvTranspose2d(3, 4, 3),
            "bag": nn.EmbeddingBag(5, 4, padding_idx=1),
            "bilinear": nn.Bilinear(2, 3, 4),
            "prelu": nn.PReLU(),
            "instance": nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
            "adaptive": nn.AdaptiveLogSoftmaxWithLoss(32, 20, [5, 10]),
            "rms": nn.RMSNorm(4),
        }
    )


def transformer() -> nn.Module:
    return nn.Transformer(8, 2, 1, 2, 16)


def old_weight_norm() -> nn.Module:
    return nn.utils.weight_norm(nn.Linear(4, 3))


def old_spectral_norm() -> nn.Module:
    return nn.utils.spectral_norm(nn.Linear(4, 3))


def new_weight_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(4, 3))


def new_spectral_norm() -> nn.Module:
    return parametrizations.spectral_norm(nn.Linear(4, 3))


def orthogonal() -> nn.Module:
    return parametrizations.orthogonal(nn.Linear(3, 3))


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    return prune.l1_unstructured(nn.Linear(4, 3), "weight", amount=0.5)


class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.average = torch.optim.swa_utils.AveragedModel(nn.Linear(4, 3))


class Siamese(nn.Module):
    """A teacher that begins as a copy of the student."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(4, 3)
        self.teacher = nn.Linear(4, 3)
        self.teacher.load_state_dict(self.student.state_dict())


class Fourier(nn.Module):
    """A saved random projection and constants derived from it only when called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(4) * 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = x * self.frequencies
        return functional.relu(self.fc(torch.cat([x.sin(), x.cos()], -1)))


SKIPPED = [
    Tied, TiedByMemory, ConstantTables, RandomTableFirst, OwnGenerator, ViewOfConstant, Flat,
    Hooked, CachedTable, OwnReset, EveryInit, CustomLoading, Around, ExtraState, VisionTransformer,
    Gpt, Residual, parametrized, several_of_torch, transformer, new_weight_norm,
    new_spectral_norm, DerivedAndSaved, Averaged, Siamese, Fourier,
]  # fmt: skip
PLAIN = [
    RandomTable, RandomAttribute, RandomNumber, RandomNumberInside, RandomTableForked,
    RandomTableUnseen, DerivedAttribute, DerivedNumber, DerivedBranch, DerivedByWriting,
    DerivedThroughNumpy, ViewOfParameter, HookedTable, HiddenModule, old_weight_norm,
    old_spectral_norm, orthogonal, pruned,
]  # fmt: skip
