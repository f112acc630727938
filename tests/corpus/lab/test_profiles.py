"""Every profile is data that says where it comes from, and enough of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from veilwatch.corpus.lab import Profile, load_profiles
from veilwatch.corpus.lab.build import CAPTURES_PER_VARIANT
from veilwatch.corpus.lab.profile import Tls

FAMILIES = [profile for profile in load_profiles() if profile.malicious]
APPLICATIONS = [profile for profile in load_profiles() if not profile.malicious]


def trained(profile: Profile) -> list[str]:
    return [variant.id for variant in profile.variant if not variant.field]


def test_enough_families_and_applications() -> None:
    assert len(FAMILIES) >= 10
    assert len(APPLICATIONS) >= 8


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
def test_profile_cites_its_source_and_has_two_variants_to_train_on(profile: Profile) -> None:
    assert profile.follows.strip()
    assert profile.source.title and profile.source.publisher
    assert len(trained(profile)) >= 2


@pytest.mark.parametrize("profile", FAMILIES, ids=lambda profile: profile.name)
def test_family_makes_five_hundred_flows_of_its_own(profile: Profile) -> None:
    flows = sum(
        activity.flows
        for variant in profile.variant
        if not variant.field
        for activity in variant.activity
    )
    assert flows * CAPTURES_PER_VARIANT >= 500


def test_names_and_variants_are_unique() -> None:
    names = [profile.name for profile in load_profiles()]
    variants = [variant.id for profile in load_profiles() for variant in profile.variant]
    assert len(set(names)) == len(names)
    assert len(set(variants)) == len(variants)


def test_some_families_have_variants_kept_for_the_field() -> None:
    assert sum(any(v.field for v in profile.variant) for profile in FAMILIES) >= 5


def test_every_tls_client_and_kind_of_certificate_is_used_by_both_classes() -> None:
    def used(profiles: list[Profile], attribute: str) -> set[str]:
        return {
            value
            for profile in profiles
            for variant in profile.variant
            for activity in variant.activity
            if isinstance(activity, Tls)
            for value in getattr(activity, attribute)
        }

    assert used(FAMILIES, "stacks") <= used(APPLICATIONS, "stacks")
    assert len(used(FAMILIES, "stacks")) >= 5
    assert used(FAMILIES, "certificate") == used(APPLICATIONS, "certificate")


def test_family_without_like_in_its_name_is_refused() -> None:
    honest = FAMILIES[0].model_dump()
    with pytest.raises(ValidationError, match="-like"):
        Profile.model_validate(honest | {"name": "WannaCry"})
