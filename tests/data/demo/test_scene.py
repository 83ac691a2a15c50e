from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from seamo_fast.data.demo.scene import FIELDS, OPTICAL_BANDS, Cover, Scene, make_scene
from seamo_fast.data.demo.scene.noise import area_mean, blur, smooth_noise
from seamo_fast.data.demo.scene.sky import sun
from seamo_fast.randomness import generator

SPRING, SUMMER, AUTUMN, WINTER = range(4)
WATER = (Cover.RIVER, Cover.LAKE)
ROOFS = (Cover.TILES, Cover.GREY_ROOF, Cover.BRIGHT_ROOF)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(0, index, size=96, seasons=4) for index in range(40)]


def inside(scene: Scene, *covers: Cover) -> np.ndarray:
    """Pixels of the covers without a neighbour of another material's cover."""
    chosen = np.isin(scene.cover, covers)
    same = np.ones_like(chosen)
    for axis in (0, 1):
        for step in (-1, 1):
            same &= np.roll(chosen, step, axis)
    same[[0, -1]] = same[:, [0, -1]] = False
    return chosen & same


def clear(scene: Scene, season: int) -> np.ndarray:
    return (scene.cloud[season] + scene.shadow[season] + scene.snow[season]) < 0.01


def spectra(scenes: list[Scene], season: int, *covers: Cover) -> dict[str, np.ndarray]:
    """Reflectance of all clear, pure pixels of the covers, by band."""
    pixels = [
        scene.optical[season][:, inside(scene, *covers) & clear(scene, season)] for scene in scenes
    ]
    joined = np.concatenate(pixels, axis=1)
    assert joined.shape[1] > 500
    return dict(zip(OPTICAL_BANDS, joined, strict=True))


def decibels(scenes: list[Scene], season: int, *covers: Cover) -> np.ndarray:
    joined = [scene.radar[season][:, inside(scene, *covers)] for scene in scenes]
    return np.concatenate(joined, axis=1)


def ndvi(bands: dict[str, np.ndarray]) -> np.ndarray:
    return (bands["B8"] - bands["B4"]) / (bands["B8"] + bands["B4"])


def test_reflectances_are_physical(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.optical.dtype == np.float32
        assert scene.optical.shape == (4, 12, 96, 96)
        assert scene.optical.min() > 0
        assert scene.optical.max() < 2


@pytest.mark.parametrize("season", range(4))
def test_water_is_dark_beyond_the_red(scenes: list[Scene], season: int) -> None:
    water = spectra(scenes, season, *WATER)
    assert np.quantile(water["B8"], 0.99) < 0.06
    assert np.quantile(water["B12"], 0.99) < 0.03
    assert (water["B3"] > water["B8"]).mean() > 0.99


def test_vegetation_has_a_red_edge_that_water_lacks(scenes: list[Scene]) -> None:
    forest = spectra(scenes, SUMMER, Cover.DECIDUOUS)
    water = spectra(scenes, SUMMER, *WATER)
    means = [forest[band].mean() for band in ("B4", "B5", "B6", "B7", "B8", "B8A")]
    assert means == sorted(means)
    assert forest["B8"].mean() > 5 * forest["B4"].mean()
    assert np.quantile(forest["B8"], 0.01) > 2 * np.quantile(water["B8"], 0.99)


def test_greenness_follows_the_season(scenes: list[Scene]) -> None:
    leaves = [ndvi(spectra(scenes, season, Cover.DECIDUOUS)).mean() for season in range(4)]
    assert leaves[SUMMER] > 0.75
    assert leaves[SUMMER] > leaves[AUTUMN] > leaves[WINTER]
    assert leaves[WINTER] < 0.55
    needles = [ndvi(spectra(scenes, season, Cover.EVERGREEN)).mean() for season in range(4)]
    assert min(needles) > 0.65
    assert max(needles) - min(needles) < 0.1
    fields = [ndvi(spectra(scenes, season, *FIELDS)).mean() for season in range(4)]
    assert fields[SUMMER] > fields[WINTER] + 0.08


def test_each_crop_has_its_own_calendar(scenes: list[Scene]) -> None:
    season_of_peak = {
        cover: int(np.argmax([ndvi(spectra(scenes, t, cover)).mean() for t in range(4)]))
        for cover in (Cover.CEREAL, Cover.MAIZE, Cover.BEET)
    }
    assert season_of_peak == {
        Cover.CEREAL: SPRING,
        Cover.MAIZE: SUMMER,
        Cover.BEET: SUMMER,
    }
    bloom, crop = (spectra(scenes, SPRING, cover) for cover in (Cover.RAPE, Cover.CEREAL))
    assert (bloom["B4"] / bloom["B2"]).mean() > (crop["B4"] / crop["B2"]).mean()
    assert bloom["B3"].mean() > 1.3 * crop["B3"].mean()


def test_bare_soil_rises_towards_the_shortwave_infrared(scenes: list[Scene]) -> None:
    maize = spectra(scenes, WINTER, Cover.MAIZE)
    means = [maize[band].mean() for band in ("B2", "B3", "B4", "B8", "B11")]
    assert means == sorted(means)


def test_snow_and_clouds_are_bright_but_differ_in_the_shortwave_infrared(
    scenes: list[Scene],
) -> None:
    snow, cloud = [], []
    for scene in scenes:
        for season in range(4):
            free = scene.cloud[season] + scene.shadow[season] < 0.01
            snow.append(scene.optical[season][:, (scene.snow[season] > 0.9) & free])
            cloud.append(scene.optical[season][:, scene.cloud[season] > 2.5])
    green, infrared = OPTICAL_BANDS.index("B3"), OPTICAL_BANDS.index("B11")
    white, grey = np.concatenate(snow, axis=1), np.concatenate(cloud, axis=1)
    assert white.shape[1] > 5000
    assert grey.shape[1] > 5000
    assert np.median(white[green]) > 0.5
    assert np.median(white[infrared]) < 0.2
    assert np.median(grey[green]) > 0.4
    assert np.median(grey[infrared]) > 0.25


def test_snow_lies_in_winter_and_high_up(scenes: list[Scene]) -> None:
    share = [np.mean([scene.snow[season].mean() for scene in scenes]) for season in range(4)]
    assert share[SUMMER] < 0.01
    assert 0.05 < share[WINTER] < 0.5
    assert share[WINTER] == max(share)
    for scene in scenes:
        assert not scene.snow[:, np.isin(scene.cover, WATER)].any()


def test_clouds_cast_shadows_on_some_dates_only(scenes: list[Scene]) -> None:
    cloudy = np.array([[image.max() > 0.05 for image in scene.cloud] for scene in scenes])
    assert 0.1 < cloudy.mean() < 0.4
    for scene in scenes:
        for season in range(4):
            ground = scene.optical[season, OPTICAL_BANDS.index("B8")]
            sunny = clear(scene, season) & inside(scene, *FIELDS)
            shaded = (scene.shadow[season] > 2) & (scene.cloud[season] < 0.01)
            shaded &= inside(scene, *FIELDS) & (scene.snow[season] < 0.01)
            if min(sunny.sum(), shaded.sum()) > 100:
                assert ground[shaded].mean() < 0.8 * ground[sunny].mean()


def test_neighbouring_bands_are_correlated(scenes: list[Scene]) -> None:
    bands = spectra(scenes, SUMMER, *Cover)
    for one, other in (("B2", "B3"), ("B6", "B7"), ("B7", "B8"), ("B8", "B8A"), ("B11", "B12")):
        assert np.corrcoef(bands[one], bands[other])[0, 1] > 0.9
    plants = spectra(scenes, SUMMER, *FIELDS)
    assert np.corrcoef(plants["B4"], plants["B8"])[0, 1] < -0.3


def test_backscatter_separates_water_land_and_town(scenes: list[Scene]) -> None:
    for season in range(4):
        water, forest, town = (
            decibels(scenes, season, *covers).mean(axis=1)
            for covers in (WATER, (Cover.EVERGREEN,), ROOFS)
        )
        assert (water < forest - 6).all()
        assert (forest < town - 2).all()
    everything = np.stack([scene.radar for scene in scenes])
    assert everything.dtype == np.float32
    assert np.isfinite(everything).all()
    assert everything.min() > -40
    assert everything.max() < 30
    assert (everything[:, :, 0] > everything[:, :, 1]).mean() > 0.95


def test_crop_growth_shows_in_the_radar_volume(scenes: list[Scene]) -> None:
    spring, summer = (
        decibels(scenes, season, Cover.MAIZE)[1].mean() for season in (SPRING, SUMMER)
    )
    assert summer > spring + 2


def test_speckle_has_about_25_looks(scenes: list[Scene]) -> None:
    looks = []
    for scene in scenes:
        lake = inside(scene, Cover.LAKE)
        if lake.sum() > 500:
            power = 10 ** (scene.radar[:, :, lake] / 10)
            looks.extend((power.mean(axis=-1) ** 2 / power.var(axis=-1)).ravel())
    assert len(looks) > 8
    assert 20 < np.median(looks) < 32


def test_dates_follow_the_seasons(scenes: list[Scene]) -> None:
    months = [{3, 4, 5}, {6, 7, 8}, {9, 10, 11}, {12, 1, 2}]
    for scene in scenes:
        assert list(scene.optical_dates) == sorted(scene.optical_dates)
        assert list(scene.radar_dates) == sorted(scene.radar_dates)
        assert (scene.optical_dates[-1] - scene.optical_dates[0]).days < 366
        for season, (optical, radar) in enumerate(
            zip(scene.optical_dates, scene.radar_dates, strict=True)
        ):
            assert optical.month in months[season]
            assert 1 <= abs((optical - radar).days) <= 6
    assert len({scene.optical_dates for scene in scenes}) == len(scenes)


@pytest.mark.parametrize(("size", "seasons"), [(6, 1), (12, 2), (30, 12)])
def test_other_sizes_and_numbers_of_seasons(size: int, seasons: int) -> None:
    for index in range(12):
        scene = make_scene(3, index, size=size, seasons=seasons)
        assert scene.optical.shape == (seasons, 12, size, size)
        assert scene.radar.shape == (seasons, 2, size, size)
        assert list(scene.optical_dates) == sorted(set(scene.optical_dates))
        assert np.isfinite(scene.optical).all()


def test_sun_stands_high_in_summer_and_in_the_south_east() -> None:
    june, december = sun(172), sun(355)
    # Elevation at noon is 90 - 47 +- 23.45 degrees; half past ten is somewhat lower.
    assert 20 < np.rad2deg(june.zenith) < 35
    assert 70 < np.rad2deg(december.zenith) < 78
    for each in (june, december):
        assert 90 < np.rad2deg(each.azimuth) < 180


def noises() -> Iterator[np.ndarray]:
    for word in range(30):
        yield smooth_noise(generator(0, "noise", word), 2, 72, (24, 12, 6))


def test_smooth_noise_has_unit_variance_and_no_jumps() -> None:
    fields = np.concatenate(list(noises()))
    assert fields.shape == (60, 72, 72)
    assert abs(fields.mean()) < 0.1
    assert abs(fields.var() - 1) < 0.15
    assert np.abs(np.diff(fields, axis=-1)).mean() < 0.15
    assert abs(np.corrcoef(fields[0].ravel(), fields[1].ravel())[0, 1]) < 0.5


def test_area_mean_equals_the_mean_of_blocks() -> None:
    image = generator(0, "image").random((2, 3, 12, 18), np.float32)
    for factor in (1, 2, 3, 6):
        expected = np.empty((2, 3, 12 // factor, 18 // factor))
        for row in range(12 // factor):
            for column in range(18 // factor):
                block = image[
                    ...,
                    row * factor : (row + 1) * factor,
                    column * factor : (column + 1) * factor,
                ]
                expected[..., row, column] = block.mean(axis=(-2, -1))
        np.testing.assert_allclose(area_mean(image, factor), expected, rtol=1e-5)


def test_blur_spreads_a_point_and_keeps_a_constant() -> None:
    np.testing.assert_allclose(blur(np.full((2, 5, 7), 3, np.float32), 2.0), 3, rtol=1e-6)
    point = np.zeros((7, 7), np.float32)
    point[3, 2] = 16
    expected = np.zeros((7, 7))
    expected[2:5, 1:4] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    np.testing.assert_allclose(blur(point, 2.0), expected, rtol=1e-6)
