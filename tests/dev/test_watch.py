import os

from glassq.dev.watch import Watch


def settled(watch):
    """What it tells: at once nothing, as a change may go on."""
    assert watch.changed() == []
    return watch.changed()


def test_settings_modules_and_packages_are_watched_and_data_is_not(tmp_path):
    config, module = tmp_path / "glassq.toml", tmp_path / "handlers.py"
    package, photos = tmp_path / "app" / "inner", tmp_path / "photos"
    package.mkdir(parents=True)
    photos.mkdir()
    for file in (config, module, tmp_path / "app" / "__init__.py", package / "__init__.py"):
        file.write_text("")
    watch = Watch(config)
    assert settled(watch) == []
    config.write_text("# a change")
    (package / "deep.py").write_text("")
    (photos / "not_ours.py").write_text("")
    assert settled(watch) == [package / "deep.py", config]
    module.unlink()
    assert settled(watch) == [module]
    assert settled(watch) == []


def test_a_change_of_neither_length_nor_name_is_seen(tmp_path):
    config = tmp_path / "glassq.toml"
    config.write_text("a")
    watch = Watch(config)
    config.write_text("b")
    os.utime(config, ns=(1, 1))
    assert settled(watch) == [config]


def test_what_changes_in_several_steps_is_told_once(tmp_path):
    config, module = tmp_path / "glassq.toml", tmp_path / "handlers.py"
    watch = Watch(config)
    module.write_text("half")
    assert watch.changed() == []
    module.write_text("half of it, and the rest")
    config.write_text("")
    assert watch.changed() == []
    assert watch.changed() == [config, module]


def test_a_file_elsewhere_is_watched_from_when_it_is_named(tmp_path):
    home, queues = tmp_path / "var", tmp_path / "queue.yaml"
    home.mkdir()
    queues.write_text("queue: []")
    watch = Watch(home / "glassq.toml")
    watch.include(queues)
    watch.include(queues)
    assert settled(watch) == []
    queues.write_text("queue:\n- name: mail")
    assert settled(watch) == [queues]
