from __future__ import annotations

from segface_batch import catalog


def test_a_published_checkpoint_is_what_its_name_says() -> None:
    datasets = {"celeba": catalog.CELEBAMASK_HQ, "lapa": catalog.LAPA, "helen": catalog.HELEN}
    for name, checkpoint in catalog.PUBLISHED.items():
        _, dataset, resolution = name.split("_")
        assert (checkpoint.dataset, checkpoint.resolution) == (datasets[dataset], int(resolution)), name
        assert checkpoint.hub_file == f"{name}/model_299.pt"  # https://huggingface.co/kartiknarayan/SegFace
    assert {*catalog.CHECKPOINTS} - {*catalog.PUBLISHED} == {catalog.DEMO_CHECKPOINT}


def test_classes_of_a_table_have_names_and_colours_of_their_own() -> None:
    for dataset in (catalog.CELEBAMASK_HQ, catalog.LAPA, catalog.HELEN):
        assert len({*dataset.class_names}) == len(dataset.classes)
        assert len({each.color for each in dataset.classes}) == len(dataset.classes)
        assert dataset.classes[catalog.BACKGROUND].meaning == "everything else"
