"""Every profile is data that says where it comes from, and enough of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from veilwatch.corpus.lab import Profile, load_profiles
from veilwatch.corpus.lab.build import CAPTURES_PER_PROFILE, HABITS
from veilwatch.corpus.lab.profile import Tls
from veilwatch.corpus.lab.world import PLATFORMS

FAMILIES = [profile for profile in load_profiles() if profile.malicious]
APPLICATIONS = [profile for profile in load_profiles() if not profile.malicious]


def test_enough_families_and_applications() -> None:
    assert len(FAMILIES) >= 10
    assert len(APPLICATIONS) >= 8


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_profile_cites_its_source_and_has_two_variants_to_train_on(profile: Profile) -> None:
    assert profile.follows.strip()
    assert profile.source.title and profile.source.publisher
    assert len(profile.trained) >= 2


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_variants_that_are_trained_on_share_the_captures(profile: Profile) -> None:
    assert CAPTURES_PER_PROFILE % len(profile.trained) == 0


def test_people_have_more_habits_than_one_host_shows() -> None:
    assert sum(profile.habit for profile in APPLICATIONS) >= HABITS[1]
    assert not any(profile.habit for profile in FAMILIES)


def test_names_and_variants_are_unique() -> None:
    names = [profile.name for profile in load_profiles()]
    variants = [variant.id for profile in load_profiles() for variant in profile.variant]
    assert len(set(names)) == len(names)
    assert len(set(variants)) == len(variants)


def test_some_families_have_variants_kept_for_the_field() -> None:
    assert sum(any(v.field for v in profile.variant) for profile in FAMILIES) >= 5


def test_every_tls_client_and_kind_of_certificate_of_a_family_is_an_applications_too() -> None:
    def used(profiles: list[Profile], attribute: str) -> set[str]:
        return {
            value
            for profile in profiles
            for variant in profile.variant
            for activity in variant.activity
            if isinstance(activity, Tls)
            for value in getattr(activity, attribute)
        }

    machines = {program for platform in PLATFORMS for program in platform}
    assert used(FAMILIES, "stacks") <= used(APPLICATIONS, "stacks") | machines
    assert len(used(FAMILIES, "stacks")) >= 5
    assert used(FAMILIES, "certificate") <= used(APPLICATIONS, "certificate")
    assert {"self-signed", "letsencrypt", "cdn"} <= used(FAMILIES, "certificate")


def test_family_without_like_in_its_name_is_refused() -> None:
    honest = FAMILIES[0].model_dump()
    with pytest.raises(ValidationError, match="-like"):
        Profile.model_validate(honest | {"name": "WannaCry"})
