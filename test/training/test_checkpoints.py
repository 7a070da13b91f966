# SPDX-License-Identifier: MIT
"""Refusal of checkpoints that no training run wrote."""

from pathlib import Path

import pytest
import torch

from xmem_ros.errors import ParameterError, WeightsError
from xmem_ros.training.loop import Trainer

NAN = float('nan')


HOSTILE = {
    'no dictionary': lambda saved: [1],
    'no settings': lambda saved: {**saved, 'config': 'small'},
    'an iteration that is a text': lambda saved: {**saved, 'iteration': 'last'},
    'an iteration below 0': lambda saved: {**saved, 'iteration': -5},
    'an iteration beyond the last': lambda saved: {**saved, 'iteration': 10**9},
    'a score that is not a number': lambda saved: {**saved, 'best': float('nan')},
    'no weights': lambda saved: {**saved, 'model': None},
    'no entry for weights': lambda saved: {k: v for k, v in saved.items() if k != 'model'},
    'weights that are numbers': lambda saved: {**saved, 'model': dict.fromkeys(saved['model'], 1)},
    'weights that are not finite': lambda saved: {**saved, 'model': {k: v * NAN for k, v in saved['model'].items()}},
    'weights of another shape': lambda saved: {**saved, 'ema': {k: v.flatten() for k, v in saved['ema'].items()}},
    'no average': lambda saved: {**saved, 'averaged': None},
    'no optimizer': lambda saved: {**saved, 'optimizer': {}},
    'an optimizer of another network': lambda saved: {
        **saved,
        'optimizer': {
            **saved['optimizer'],
            'state': {k: {**v, 'exp_avg': torch.zeros(3)} for k, v in saved['optimizer']['state'].items()},
        },
    },
    'no scaler': lambda saved: {k: v for k, v in saved.items() if k != 'scaler'},
}


@pytest.fixture(scope='module')
def finished(data: Path, small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('finished')
    Trainer(small(iterations=1), data, out).run()
    return out / 'last.pt'


@pytest.mark.parametrize('name', HOSTILE)
def test_a_checkpoint_that_no_run_wrote_is_refused(
    data: Path, small, finished: Path, tmp_path: Path, name: str
) -> None:
    saved = torch.load(finished, weights_only=True)
    torch.save(HOSTILE[name](saved), tmp_path / 'last.pt')
    with pytest.raises((WeightsError, ParameterError), match=r'last\.pt'):
        Trainer(small(iterations=1), data, tmp_path)
