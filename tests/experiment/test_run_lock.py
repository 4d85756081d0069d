"""The directory of a run that cannot be one."""

import pytest

from bnnlight.experiment.run_lock import RunLock


@pytest.mark.parametrize("new", [False, True])
def test_a_file_is_named_and_stays(tmp_path, check_one_line, new):
    file = tmp_path / "run"
    file.write_text("mine")
    with pytest.raises(FileExistsError if new else NotADirectoryError) as error:
        RunLock(file, new)
    if not new:
        check_one_line(error, file, "is a file", "--run_dir")
    assert file.read_text() == "mine"
