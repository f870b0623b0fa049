"""The files are .beton files like any other, and their bytes depend on source and settings alone."""

import torch

from adarem.data import fingerprint
from adarem.data.images.sampling import CentreCrop
from adarem.data.loaders import open_eval
from adarem.data.prepare import prepare
from tests.support.photos import data_config


def test_file_does_not_depend_on_the_number_of_workers(photo_root):
    found = []
    for workers in (1, 3):
        data = data_config(photo_root, beton_dir=str(photo_root / f"by{workers}"))
        prints = prepare(data, workers=workers, progress=False)
        found.append((prints, [fingerprint.beton_path(data, s).read_bytes() for s in ("train", "val")]))
    assert found[0] == found[1]


def test_stock_ffcv_reads_our_files(photos, monkeypatch):
    """FFCV's own loader and decoder see the same pixels and labels: the file is a .beton like any other."""

    def ffcvs_box(self: CentreCrop, word: int, height: int, width: int) -> tuple[int, int, int, int, bool]:
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side, False

    monkeypatch.setattr(CentreCrop, "box", ffcvs_box)
    import ffcv.fields.decoders
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    data = photos(eval_resize=96, eval_crop=96)
    decoder = ffcv.fields.decoders.CenterCropRGBImageDecoder((96, 96), ratio=1)
    stock = Loader(
        str(fingerprint.beton_path(data, "val")),
        batch_size=8,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        os_cache=True,
        pipelines={"image": [decoder, ToTensor()]},
    )
    ours = open_eval(data, batch_size=8, rank=0, world_size=1, device="cpu")
    for (x, y), (_, images, labels) in zip(stock, ours, strict=True):
        assert torch.equal(x, images.permute(0, 2, 3, 1)) and torch.equal(y.flatten(), labels)
