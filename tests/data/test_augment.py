import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tljax.data import augment

KEY = jax.random.key(7)
LINE = 'flip|shift:2|crop:3,reflect|rotate:15|color:0.2,0.2,0.2|erase:0.5'


def noise(*shape):
    return jax.random.uniform(jax.random.key(1), shape)


def dot(height, width, y, x, count=64):
    return jnp.zeros((count, height, width, 1)).at[:, y, x].set(1.0)


def run(spec, images, key=KEY):
    return np.asarray(jax.jit(augment.build(spec))(key, images))


def turn(image, angle):
    return augment._warp(image, augment._turns(jnp.array([angle]))[0], jnp.zeros(2))


def test_flip_twice_is_nothing():
    images = noise(4, 5, 6, 3)
    once = run('flip:1', images)
    np.testing.assert_array_equal(once, images[:, :, ::-1])
    np.testing.assert_array_equal(run('flip:1', once), images)
    np.testing.assert_array_equal(run(['flip:1', 'flip:1'], images), images)
    np.testing.assert_array_equal(run('flip:0', images), images)


def test_flip_is_half_of_the_time():
    moved = run('flip', dot(3, 3, 1, 0, 1000))[:, 1, 2, 0]
    assert 430 < moved.sum() < 570


def test_shift_moves_a_pixel_to_every_place_and_no_further():
    moved = run('shift:2', dot(9, 9, 4, 4, 500))[..., 0]
    assert (moved.reshape(500, -1).sum(1) == 1).all()
    counts = moved.sum(0)
    assert (counts[2:7, 2:7] > 5).all()
    assert counts.sum() == counts[2:7, 2:7].sum()


def test_shift_lets_black_in():
    moved = run('shift:1', jnp.ones((100, 4, 4, 1)))[..., 0]
    assert set(moved.reshape(100, -1).sum(1).astype(int).tolist()) == {9, 12, 16}


def test_crop_mirrors_the_border_when_asked():
    images = jnp.arange(16.0).reshape(1, 4, 4, 1).repeat(50, 0) / 16
    padded = np.pad(np.asarray(images[0, ..., 0]), 2, 'reflect')
    windows = {padded[y : y + 4, x : x + 4].tobytes() for y in range(5) for x in range(5)}
    out = run('crop:2,reflect', images)[..., 0]
    assert {image.tobytes() for image in out} <= windows
    assert len({image.tobytes() for image in out}) > 10


def test_rotation_by_hand():
    corner = np.asarray(turn(dot(5, 5, 0, 4, 1)[0], np.pi / 2))[..., 0]
    expected = np.zeros((5, 5))
    expected[0, 0] = 1  # the upper right corner goes to the upper left: counter-clockwise
    np.testing.assert_allclose(corner, expected, atol=1e-5)
    image = noise(6, 8, 3)
    np.testing.assert_allclose(turn(image, 0.0), image, atol=1e-6)


def test_rotation_is_bilinear_and_black_outside():
    ones = np.asarray(turn(jnp.ones((9, 9, 1)), np.pi / 4))[..., 0]
    assert ones[0, 0] == 0
    np.testing.assert_allclose(ones[3:6, 3:6], 1, atol=1e-5)
    ramp = jnp.broadcast_to(jnp.arange(9.0)[None, :, None], (9, 9, 1))
    turned = np.asarray(turn(ramp, np.deg2rad(20)))[..., 0]
    # On a linear image, bilinear interpolation is exact.
    assert turned[4, 6] == pytest.approx(4 + 2 * np.cos(np.deg2rad(20)), abs=1e-4)
    assert turned[6, 4] == pytest.approx(4 - 2 * np.sin(np.deg2rad(20)), abs=1e-4)


def test_rotation_stays_within_its_degrees():
    out = run('rotate:10', dot(21, 21, 10, 20, 200))[..., 0]
    y = (out * np.arange(21)[:, None]).sum((1, 2)) / out.sum((1, 2))
    assert abs(y - 10).max() < 10 * np.sin(np.deg2rad(10)) + 0.3
    assert y.min() < 8.8
    assert y.max() > 11.2


def test_affine_against_scipy():
    """All seven numbers, from the operation's own draws, by SciPy's interpolation."""
    images = noise(20, 13, 11, 1)
    out = run('affine:30,0.2,0.1,2', images)
    draw = np.asarray(augment._draw(jax.random.fold_in(KEY, 0), images, 14))
    value = (2 * draw[:, :7] - 1) * [np.deg2rad(30), 0.2, 0.2, 0.1, 0.1, 2, 2] * (draw[:, 7:] < 0.5)
    middle = np.array([6.0, 5.0])
    for image, shown, (angle, of_y, of_x, height, width, *shift) in zip(
        np.asarray(images), out, value, strict=True
    ):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forth = turn @ [[1, of_y], [of_x, 1]] @ np.diag([1 + height, 1 + width])
        back = np.linalg.inv(forth)
        offset = middle - back @ (middle + shift)
        padded = np.pad(image[..., 0], 20)
        there = ndimage.affine_transform(
            padded, back, 20 - back @ [20, 20] + offset, order=1, output_shape=padded.shape
        )
        np.testing.assert_allclose(shown[..., 0], there[20:-20, 20:-20], atol=2e-5)


def test_affine_moves_half_of_the_time():
    images = noise(1, 9, 9, 1).repeat(400, 0)
    same = (run('affine:0,0,0,2', images) == np.asarray(images)).all((1, 2, 3))
    assert 0.2 < same.mean() < 0.3, 'both shifts stay away in a quarter of all images'


def test_brightness_contrast_and_saturation_alone():
    images = noise(50, 4, 4, 3) * 0.5 + 0.2
    grey = np.asarray(images) @ [0.299, 0.587, 0.114]
    bright = run('color:0.1', images) / np.asarray(images)
    assert bright.std((1, 2, 3)).max() < 1e-5
    assert 0.9 <= bright.min() < 0.95 < 1.05 < bright.max() <= 1.1001
    contrast = run('color:0,0.2', images)
    np.testing.assert_allclose(
        (contrast @ [0.299, 0.587, 0.114]).mean((1, 2)), grey.mean((1, 2)), atol=1e-5
    )
    ratio = contrast.std((1, 2, 3)) / np.asarray(images).std((1, 2, 3))
    assert 0.79 < ratio.min() < 0.9 < 1.1 < ratio.max() < 1.21
    saturated = run('color:0,0,0.3', images)
    np.testing.assert_allclose(saturated @ [0.299, 0.587, 0.114], grey, atol=1e-5)
    assert abs(saturated - images).max() > 0.02
    only_grey = images[..., :1]
    np.testing.assert_allclose(run('color:0,0,0.3', only_grey), only_grey, atol=1e-6)


def test_color_stays_in_range():
    out = run('color:0.9,0.9,0.9', noise(50, 4, 4, 3))
    assert out.min() == 0
    assert out.max() == 1


@pytest.mark.parametrize('shape', [(32, 32), (20, 48)])
def test_erase_covers_one_rectangle_of_bounded_area(shape):
    gone = run('erase:1', jnp.full((2000, *shape, 1), 2.0))[..., 0] != 2
    for image in gone:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert image.sum() == height * width
        assert max(height - 1, 1) / (width + 1) < 10 / 3
        assert max(width - 1, 1) / (height + 1) < 10 / 3
    share = gone.mean((1, 2))
    assert 0.01 < share.min() < 0.06
    assert 0.34 < share.max() < 0.43
    assert gone.any(0).all()  # corners, too


def test_erase_has_its_probability():
    gone = (run('erase:0.25', jnp.full((1000, 8, 8, 3), 2.0)) != 2).any((1, 2, 3))
    assert 190 < gone.sum() < 310


@pytest.mark.parametrize('spec', LINE.split('|'))
def test_draws_differ_between_images_and_repeat_with_the_key(spec):
    images = noise(1, 12, 12, 3).repeat(16, 0)
    out = run(spec, images)
    np.testing.assert_array_equal(out, run(spec, images))
    assert len({image.tobytes() for image in out}) > 1
    assert (out != run(spec, images, jax.random.key(8))).any()


def test_the_same_operation_twice_draws_anew():
    images = dot(15, 15, 7, 7, 200)
    moved = run('shift:1|shift:1', images)[..., 0].sum(0)
    assert moved[7, 8] > 0 < moved[7, 9]


def test_depends_on_key_and_place_only():
    images = noise(16, 12, 12, 3)
    keys = jax.random.split(KEY, 3)
    members = jax.jit(jax.vmap(augment.build(LINE)))(keys, jnp.stack([images] * 3))
    alone = jax.jit(augment.build(LINE))
    for key, member in zip(keys, members, strict=True):
        np.testing.assert_allclose(alone(key, images[:5]), member[:5], atol=1e-5)
    assert (members >= 0).all()
    assert (members <= 1).all()
    assert members.dtype == np.float32


def test_nothing_declared_is_nothing_done():
    images = noise(2, 3, 3, 1)
    np.testing.assert_array_equal(run('', images), images)
    np.testing.assert_array_equal(run([], images), images)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('flop', "no augmentation 'flop'; did you mean 'flip'"),
        (
            'mixup',
            "no augmentation 'mixup'; there is: flip, shift, crop, rotate, affine, color, erase",
        ),
        ('flip:2', r'flip: probability must be in \[0, 1\], not 2.0'),
        ('shift:1.5', 'expected a whole number of pixels, not 1.5'),
        ('shift:-1', 'expected a whole number of pixels'),
        ('crop:x', "expected a whole number of pixels, not 'x'"),
        ('crop:4,mirror', "no border 'mirror'; there is: black, reflect"),
        ('rotate:200', r'degrees must be in \[0, 180\]'),
        ('rotate', r"augment 'rotate': 0 values do not fit. rotate: Turns around the centre"),
        ('flip:0.1,0.2', '2 values do not fit'),
        ('color:0.1,a', "contrast must be in .*, not 'a'"),
        ('erase:0.5,0.5,0.1', r'erase: least must be in \[0, 0.1\], not 0.5'),
        ('flip|shfit:2', "no augmentation 'shfit'; did you mean 'shift'"),
    ],
)
def test_bad_lines(spec, message):
    with pytest.raises(ValueError, match=message):
        augment.build(spec)
