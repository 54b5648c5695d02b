"""No checkpoint file runs code, takes memory that it does not hold, or ends in anything but a message."""
from __future__ import annotations

import json
import pickle
from pathlib import Path

import mmengine.runner
import pytest
import torch
from checkpoint_readers import COMMANDS
from hostile_checkpoints import FORMATS, LIES, PAYLOADS, damaged
from mmengine.runner import load_checkpoint
from mmengine.utils import digit_version
from PIL import Image
from thin_networks import RESNET

from dynconv_mm.conversion import CheckpointError, read_checkpoint, read_state_dict, write_checkpoint
from dynconv_mm.models import ODConvResNet

# mmengine's own loading is torch's, which is safe by default from this version on; the onedl fork loads without
# weights_only what is refused with it
SAFE_BY_DEFAULT = digit_version(torch.__version__.partition('+')[0]) >= digit_version('2.6') \
    and not hasattr(mmengine.runner.checkpoint, 'get_torch_safe_globals')
pytestmark = pytest.mark.filterwarnings('ignore:Detected pickle protocol')


def refuse_by_reading(file: Path) -> None:
    for read in (read_checkpoint, read_state_dict):
        with pytest.raises(CheckpointError, match=file.name):
            read(file)


def refuse_by_mmengine(file: Path) -> None:
    """As the runner, `mim test`, ``init_detector`` and ``get_model`` load."""
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        load_checkpoint(torch.nn.Linear(1, 1), str(file), map_location='cpu')


def refuse_by_backbone(file: Path) -> None:
    backbone = ODConvResNet(kernel_num=1, init_cfg=dict(type='Pretrained', checkpoint=str(file)), **RESNET)
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        backbone.init_weights()


READERS = dict(conversion=refuse_by_reading, mmengine=refuse_by_mmengine, init_cfg=refuse_by_backbone)


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('form', FORMATS)
def test_code_is_not_run(tmp_path, count, form, reader):
    if reader != 'conversion' and not SAFE_BY_DEFAULT:
        pytest.skip('mmengine loads without weights_only')
    for number, (name, payload) in enumerate(PAYLOADS.items()):
        file, touched = tmp_path / f'bad{number}.pth', tmp_path / f'touched{number}'
        FORMATS[form](file, payload(str(touched)))
        count('files that run code, refused without running it')
        READERS[reader](file)
        assert not touched.exists(), name


@pytest.mark.parametrize('kind', LIES)
def test_lies_are_refused(tmp_path, count, kind):
    file = tmp_path / 'bad.pth'
    LIES[kind](file)
    count('files that declare what they do not hold, refused')
    with pytest.raises(CheckpointError, match='bad.pth'):
        read_state_dict(file)


def test_damaged_files(tmp_path, count):
    """A few wrong bytes give other numbers or a message, never another error."""
    weights = {'conv.weight': torch.arange(6.).view(2, 3), 'conv.bias': torch.ones(2)}
    refused = 0
    for zipped in (True, False):
        file = tmp_path / 'weights.pth'
        torch.save(dict(state_dict=weights, meta=dict(epoch=3)), file, _use_new_zipfile_serialization=zipped)
        for content in damaged(file.read_bytes(), 300):
            file.write_bytes(content)
            count('damaged files read')
            try:
                read = read_state_dict(file)
            except CheckpointError as error:
                refused += 1
                assert 'weights.pth' in str(error)
            else:
                assert all(value.sum().shape == () for value in read.values())
    assert refused > 100


def test_what_is_not_hostile_is_read(tmp_path):
    """Views, which share a storage, and repeated numbers, which have more elements than the file."""
    weight = torch.arange(24.)
    weights = dict(whole=weight, part=weight[3:9].view(2, 3), turned=weight.view(4, 6).t(),
                   repeated=torch.ones(1).expand(100000), half=weight.half(), integer=torch.arange(3))
    for zipped in (True, False):
        torch.save(weights, tmp_path / 'good.pth', _use_new_zipfile_serialization=zipped)
        torch.testing.assert_close(read_state_dict(tmp_path / 'good.pth'), weights)
    write_checkpoint(tmp_path / 'empty.pth', dict(weight=torch.ones(0)))
    assert read_state_dict(tmp_path / 'empty.pth')['weight'].numel() == 0


@pytest.fixture
def arguments(tmp_path, root) -> dict[str, str]:
    """What stands for the names in :data:`COMMANDS`."""
    test_dir = tmp_path / 'test' / '20260101_000000'
    test_dir.mkdir(parents=True)
    (test_dir / '20260101_000000.json').write_text(json.dumps({
        f'coco/bbox_{name}': 0.5 for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')}))
    Image.new('RGB', (32, 24)).save(tmp_path / 'image.png')
    return dict(config=str(root / 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py'),
                image=str(tmp_path / 'image.png'), test_dir=str(tmp_path / 'test'), out=str(tmp_path / 'out'))


@pytest.mark.one_at_a_time('tool', 'kind')
@pytest.mark.parametrize('tool', COMMANDS)
@pytest.mark.parametrize('kind', [*PAYLOADS, *LIES])
def test_command_lines(tmp_path, load_tool, count, capsys, arguments, tool, kind):
    """They end with a line that names the file, an exit code, and nothing written."""
    pytest.importorskip('mmdet')
    main = load_tool(tool).main
    file, touched = tmp_path / 'bad.pth', tmp_path / 'touched'
    if kind in LIES:
        LIES[kind](file)
    else:
        FORMATS['zip'](file, PAYLOADS[kind](str(touched)))
    before = set(tmp_path.iterdir())
    count('hostile files given to command lines')
    with pytest.raises(SystemExit) as ended:
        main([part.format(checkpoint=file, **arguments) for part in COMMANDS[tool]])
    message = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert ended.value.code not in (None, 0) and 'bad.pth' in message and 'Traceback' not in message
    assert not touched.exists() and set(tmp_path.iterdir()) == before
