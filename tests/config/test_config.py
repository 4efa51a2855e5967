from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fedbench.config import (
    Device,
    Experiment,
    Machine,
    Network,
    Profile,
    available,
    load_device,
    load_devices,
    load_experiment,
    load_networks,
    load_profile,
    parse_name,
    split_overrides,
)
from fedbench.config.partitions import BySize, Dirichlet, Iid, Partition, Replicated, Shards
from fedbench.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", available("device"))
def test_every_device_loads_under_its_file_name(name: str) -> None:
    assert load_device(name).name == name


@pytest.mark.parametrize("name", available("experiment"))
def test_every_experiment_loads_under_its_file_name(name: str) -> None:
    assert load_experiment(name).name == name


@pytest.mark.parametrize("name", [n for n in available("experiment") if n.startswith("tuned-")])
def test_what_is_tuned_costs_what_the_study_cost(name: str) -> None:
    tuned = load_experiment(name)

    assert name == f"tuned-{tuned.model.replace('_', '-')}"
    assert (tuned.rounds, tuned.local_epochs, tuned.batch_size) == (20, 20, 32)
    assert (tuned.data.name, tuned.data.partition) == ("cifar10", Replicated())
    assert (tuned.data.train_samples, tuned.stem_stride) == (None, 2)


@pytest.mark.parametrize("name", available("profile"))
def test_every_profile_loads_with_the_devices_it_names(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert load_devices(profile).keys() == {machine.device for machine in profile.machines}


def test_the_promised_profiles_are_there() -> None:
    assert {"heterogeneous", "legacy-pair", "homogeneous"} <= set(available("profile"))
    heterogeneous = load_profile("heterogeneous")
    assert [machine.device for machine in heterogeneous.machines] == [
        "workstation",
        "laptop",
        "legacy-pc",
    ]
    assert load_profile("legacy-pair").machines == (Machine(device="legacy-pc", clients=2),)


def test_a_device_is_read_with_its_units() -> None:
    device = load_device("workstation")
    assert (device.cores, device.memory) == (16, 64 * 2**30)
    assert device.speed == {"mobilenet_v2": pytest.approx(50_000 / 211)}


def test_a_network_is_a_name_or_keys(tmp_path: Path) -> None:
    machines = "machines: [{device: laptop, network: {down: 10Mbit, delay: 10ms, loss: 1%}}]\n"
    profile = load_profile(str(write(tmp_path / "mine.yaml", f"{machines}network: lte\n")))
    link = Network(down=1e7, delay=0.01, loss=0.01)
    assert profile.network == "lte"
    assert profile.machines == (Machine(device="laptop", network=link),)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_a_key_of_an_inner_network_is_blamed_on_the_option_that_sets_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("homogeneous", ["network.down=fast", "network.dely=1ms"])
    assert caught.value.message.splitlines() == [
        "--set network.down=fast: network.down: "
        "expected a rate such as 10Mbit or 500kbit, found 'fast'",
        "--set network.dely=1ms: network.dely: no such key; did you mean delay?",
    ]


@pytest.mark.parametrize("name", available("device"))
def test_a_device_reads_back_from_json(name: str) -> None:
    device = load_device(name)
    assert Device.model_validate_json(device.model_dump_json()) == device


def test_a_profile_is_dilated_and_lets_cpus_stand_in_for_gpus() -> None:
    profile = load_profile("homogeneous", ["dilation=2", "gpu_stand_in=false"])
    assert (profile.dilation, profile.gpu_stand_in) == (2.0, False)
    assert load_profile("homogeneous").dilation is None


def test_configurations_are_looked_up_in_another_folder_too(tmp_path: Path) -> None:
    write(tmp_path / "devices/phone.yaml", "description: d\ncores: 2.5\nmemory: 1GiB\n")
    assert available("device", tmp_path) == ["phone"]
    phone = Device(name="phone", description="d", cores=2.5, memory=2**30)
    assert load_device("phone", root=tmp_path) == phone
    profile = Profile(name="one", machines=(Machine(device="phone"),))
    assert load_devices(profile, tmp_path) == {"phone": phone}


def test_the_path_of_a_file_does_for_a_name_and_the_file_may_name_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", "rounds: 2\n")
    assert load_experiment(str(file)) == Experiment(name="mine", rounds=2)
    write(file, "name: other\n")
    assert load_experiment(str(file)).name == "other"


def test_a_device_that_cannot_be_loaded_is_traced_to_the_machine(tmp_path: Path) -> None:
    file = write(tmp_path / "devices/phone.yaml", "description: d\ncores: 0\nmemory: 1GiB\n")
    profile = Profile(name="one", machines=(Machine(device="phone"),))
    with pytest.raises(ConfigError) as caught:
        load_devices(profile, tmp_path)
    assert caught.value.message == (
        f"profile one: machines.0.device: {file}: cores: expected a number greater than 0, found 0"
    )


@pytest.mark.parametrize("name", ["a", "legacy-pc", "3", "a" * 41])
def test_a_name_is_kept(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a/b", "a_b", "../a", "a\n", "a" * 42])
def test_what_could_name_no_container_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected lower-case letters, digits and '-'"):
        parse_name(name)


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError, match="Instance is frozen"):
        load_device("laptop").cores = 1  # type: ignore[misc]


def test_a_run_reads_back_the_configuration_that_it_stored() -> None:
    for name in available("profile"):
        profile = load_profile(name, ["ports.server=9093", "strict=true"])
        assert Profile.model_validate_json(profile.model_dump_json()) == profile
    experiment = load_experiment("digits", ["learning_rate=1e-3", "data.train_samples=7"])
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_any_key_can_be_set() -> None:
    experiment = load_experiment(
        "digits",
        ["rounds=9", "learning_rate=1e-2", "data.partition=replicated", "rounds=7"],
    )
    assert (experiment.rounds, experiment.learning_rate) == (7, 0.01)
    assert (experiment.data.name, experiment.data.partition) == ("digits", Replicated())
    profile = load_profile(
        "heterogeneous", ["ports.server=9093", "machines=[{device: laptop, count: 2}]"]
    )
    assert (profile.ports.server, profile.ports.prometheus) == (9093, 9090)
    assert profile.machines == (Machine(device="laptop", count=2),)


@pytest.mark.parametrize(
    ("settings", "partition"),
    [
        ([], Iid()),
        (["data.partition=dirichlet"], Dirichlet(alpha=0.5, min_samples=10)),
        (["data.partition=dirichlet", "data.partition.alpha=1"], Dirichlet(alpha=1.0)),
        (["data.partition={name: shards, per_client: 3}"], Shards(per_client=3)),
        (["data.partition.name=shards"], Shards(per_client=2)),
        (["data.partition=size"], BySize(law="linear")),
        (["data.partition=size", "data.partition.law=square"], BySize(law="square")),
        (["data.partition=size", "data.partition.sizes=[3, 4]"], BySize(sizes=(3, 4))),
    ],
)
def test_a_partition_is_a_name_or_keys(settings: list[str], partition: Partition) -> None:
    experiment = load_experiment("digits", settings)
    assert experiment.data.partition == partition
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_a_partition_in_a_file_has_the_same_forms(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "data: {partition: dirichlet}\n")
    assert load_experiment(str(file)).data.partition == Dirichlet()
    write(file, "data:\n  partition: {name: size, sizes: [2, 3]}\n")
    assert load_experiment(str(file)).data.partition == BySize(sizes=(2, 3))


ONE_OF = "expected one of replicated, iid, dirichlet, shards, size"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["=shard"], f"=shard: data.partition: {ONE_OF}; did you mean shards?, found 'shard'"),
        (["=3"], f"=3: data.partition: {ONE_OF}, found 3"),
        (["={alpha: 1}"], f"={{alpha: 1}}: data.partition: {ONE_OF}, found {{'alpha': 1}}"),
        (
            ["=dirichlet", ".alhpa=1"],
            ".alhpa=1: data.partition.alhpa: no such key; did you mean alpha?",
        ),
        (
            ["=dirichlet", ".alpha=0"],
            ".alpha=0: data.partition.alpha: expected a number greater than or equal to 0.001, "
            "found 0",
        ),
        (
            ["=size", ".sizes=[3, 0]"],
            ".sizes=[3, 0]: data.partition.sizes.1: expected a number greater than or equal to 1, "
            "found 0",
        ),
        (
            ["={name: size, sizes: [3], law: square}"],
            "={name: size, sizes: [3], law: square}: data.partition.law: "
            "expected either this or sizes",
        ),
    ],
)
def test_what_is_wrong_with_a_partition_is_said_in_its_keys(
    settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("digits", [f"data.partition{setting}" for setting in settings])
    assert caught.value.message == f"--set data.partition{message}"


def test_settings_go_to_the_experiment_or_to_the_profile() -> None:
    settings = ["rounds=5", "strict=true", "data.name=folder", "ports.server=1", "name=mine"]
    assert split_overrides(settings) == (
        ["rounds=5", "data.name=folder"],
        ["strict=true", "ports.server=1", "name=mine"],
    )


def test_what_an_option_spoils_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("digits", ["rounds=x", "data.nmae=a", "seed=1"])
    assert caught.value.message.splitlines() == [
        "--set data.nmae=a: data.nmae: no such key; did you mean name?",
        "--set rounds=x: rounds: expected a whole number, found 'x'",
    ]
    assert caught.value.hint == ""


def test_of_two_options_for_one_key_the_last_is_to_blame() -> None:
    with pytest.raises(ConfigError, match=r"^--set rounds=x: rounds: "):
        load_experiment("digits", ["rounds=y", "rounds=x"])


def test_file_and_option_are_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "rounds: many\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(file), ["data=3"])
    assert caught.value.message.splitlines() == [
        "--set data=3: data: expected keys and values, found 3",
        f"{file}: rounds: expected a whole number, found 'many'",
    ]
    assert caught.value.hint == f"edit {file}"


@pytest.mark.parametrize("name", available("device"))
def test_the_network_of_every_device_is_known(name: str) -> None:
    profile = Profile(name="one", machines=(Machine(device=name),))
    (network,) = load_networks(profile, load_devices(profile))
    assert (network is None) == (load_device(name).network is None)


def test_a_model_may_be_torchvisions_or_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{description: '', cores: 4, memory: 1GiB, "
        "speed: {resnet18: 40 samples/s, sample:small_cnn: 100 s/epoch}, "
        "capacity: {sample:small_cnn: 600 samples/s}, "
        "sources: {speed.sample:small_cnn: a stopwatch}}"
    )
    device = load_device(str(file))
    assert device.speed == {"resnet18": 40.0, "sample:small_cnn": 500.0}
    assert device.figures()["capacity.sample:small_cnn"] == "600 samples/s"
    assert "speed.resnet18" in device.estimated()
    assert load_experiment("digits", ["model=sample:small_cnn"]).model == "sample:small_cnn"
