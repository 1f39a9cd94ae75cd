import io

import numpy as np
import pytest
from PIL import Image

from tljax.data import decode
from tljax.data.decode import Pixels


def encoded(image, kind='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image, kind='PNG', size=None, channels=None, fit='crop', **options):
    data = encoded(image, kind, **options)
    return decode.from_bytes(data, 'a.png', Pixels(size, channels, fit))


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def test_lossless_images_come_through_unchanged():
    for array in (noise(5, 7, 3), noise(5, 7)):
        out = decoded(Image.fromarray(array))
        assert out.dtype == np.uint8
        assert out.flags.writeable
        np.testing.assert_array_equal(out, array.reshape(5, 7, -1))


def test_grey_to_rgb_and_back():
    grey = noise(4, 4)
    np.testing.assert_array_equal(
        decoded(Image.fromarray(grey), channels=3), grey[..., None].repeat(3, 2)
    )
    red = decoded(Image.new('RGB', (2, 2), (255, 0, 0)), channels=1)
    assert red.shape == (2, 2, 1)
    assert (red == 76).all()  # 0.299 * 255


def test_sixteen_bits_are_scaled_and_not_cut():
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ('PNG', 'TIFF'):
        assert decoded(Image.fromarray(deep), kind)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_and_32_bit_images():
    floats = np.array([[0, 0.5, 1]], np.float32)
    assert decoded(Image.fromarray(floats), 'TIFF')[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match=r'a.png: has floats in \[0.0, 3.0\]'):
        decoded(Image.fromarray(floats * 3), 'TIFF')
    with pytest.raises(ValueError, match=r'a.png: has values in \[0, 70000\]; at most 16 bits'):
        decoded(Image.fromarray(np.array([[0, 70000]], np.int32)), 'TIFF')


def test_palette_bits_cmyk_and_alpha():
    assert decoded(Image.new('RGB', (2, 2), (10, 200, 30)).quantize(4))[0, 0].tolist() == [
        10,
        200,
        30,
    ]
    assert decoded(Image.new('1', (2, 2), 1))[0, 0].tolist() == [255]
    cmyk = decoded(Image.new('CMYK', (8, 8), (255, 0, 255, 0)), 'JPEG')
    assert abs(cmyk[0, 0].astype(int) - [0, 255, 0]).max() < 12
    clear = Image.new('RGBA', (2, 2), (255, 0, 0, 0))  # invisible red lies over white
    assert decoded(clear)[0, 0].tolist() == [255, 255, 255]
    assert decoded(Image.new('RGBA', (2, 2), (255, 0, 0, 255)))[0, 0].tolist() == [255, 0, 0]
    assert decoded(Image.new('LA', (2, 2), (7, 255)))[0, 0].tolist() == [7]


def test_exif_orientation_is_honoured():
    image = Image.new('RGB', (8, 4))
    image.paste('white', (0, 0, 8, 2))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: white to the right
    out = decoded(image, exif=exif)
    assert out.shape == (8, 4, 3)
    assert out[:, 2:].min() == 255
    assert out[:, :2].max() == 0


def test_gif_gives_its_first_frame_whatever_its_name():
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    data = encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    out = decode.from_bytes(data, 'a.jpg', Pixels(channels=3))
    assert out[0, 0].tolist() == [255, 0, 0]


def test_crop_cuts_the_centre_and_squash_keeps_all():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 255
    assert (decoded(Image.fromarray(image), size=4) == 255).all()
    squashed = decoded(Image.fromarray(image), size=4, fit='squash')
    assert squashed[:, 1:3].min() > 200
    assert squashed[:, [0, 3]].max() < 55


def test_crop_share_is_resizing_and_cutting():
    image = Image.fromarray(noise(64, 90, 3))
    expected = np.asarray(image)[4:60, 17:73]  # short side is 64 already: no resampling at all
    np.testing.assert_array_equal(decoded(image, size=56, fit='crop:0.875'), expected)
    resized = image.resize((45, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[2:30, 8:36].astype(int)
    out = decoded(image, size=28, fit='crop:0.875')
    assert abs(out - expected).mean() < 1  # the same but for rounding


def test_resizing_antialiases():
    lines = np.zeros((64, 64), np.uint8)
    lines[::2] = 255
    assert abs(decoded(Image.fromarray(lines), size=8).astype(int) - 128).max() < 8


def test_large_jpeg_is_shrunk_on_the_way_without_a_visible_change():
    y, x = np.mgrid[:600, :800]
    image = np.stack([x * 255 // 800, y * 255 // 600, (x + y) % 256], -1).astype(np.uint8)
    out = decoded(Image.fromarray(image), 'JPEG', size=32, quality=95)
    expected = decoded(Image.fromarray(image), size=32)
    assert abs(out.astype(int) - expected).mean() < 2


def test_arrays_take_the_same_road():
    image = noise(8, 8, 1)
    np.testing.assert_array_equal(decode.from_array(image, 'a', Pixels()), image)
    np.testing.assert_array_equal(decode.from_array(image, 'a', Pixels(8)), image)
    expected = decoded(Image.fromarray(image[..., 0]), size=5, channels=3)
    np.testing.assert_array_equal(decode.from_array(image, 'a', Pixels(5, 3)), expected)


def broken_png():
    data = bytearray(encoded(Image.fromarray(noise(20, 20, 3))))
    data[60:200] = bytes(140)
    return bytes(data)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', r'^pets/a.jpg: is empty \(0 bytes\); restore or remove it'),
        (
            b'hello, world',
            r"^pets/a.jpg: is no image that Pillow can read \(it begins with 'hello,",
        ),
        (b'\xff\xd8\xff\xe0' + b'\x00' * 30, r'^pets/a.jpg: is'),
        (
            encoded(Image.fromarray(noise(40, 40, 3)), 'JPEG')[:500],
            r'^pets/a.jpg: is truncated or d',
        ),
        (encoded(Image.fromarray(noise(40, 40, 3)))[:500], r'^pets/a.jpg: is truncated or damaged'),
        (broken_png(), r'^pets/a.jpg: is truncated or damaged'),
    ],
    ids=['empty', 'text', 'header', 'short jpeg', 'short png', 'broken png'],
)
def test_bad_images_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        decode.from_bytes(data, 'pets/a.jpg', Pixels(8))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.jpg: can't be read \(No such file"):
        decode.from_file(str(tmp_path / 'gone.jpg'), Pixels())


@pytest.mark.parametrize(
    ('pixels', 'message'),
    [
        (Pixels(channels=2), r'channels must be 1 \(grey\) or 3 \(RGB\), not 2'),
        (Pixels(size=0), 'size must be a positive whole number of pixels, not 0'),
        (Pixels(size=(32, 32)), 'size must be a positive'),
        (Pixels(fit='pad'), "fit must be 'squash', 'crop' or for example 'crop:0.875', not 'pad'"),
        (Pixels(fit='crop:2'), 'fit must be'),
        (Pixels(fit='crop:half'), 'fit must be'),
    ],
)
def test_wishes_that_cannot_be(pixels, message):
    with pytest.raises(ValueError, match=message):
        decode.check(pixels)
