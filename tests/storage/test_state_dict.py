"""State dicts that are damaged in ways that their library would not make."""

import zipfile

import pytest

from storage.state_dict import read_state_dict


@pytest.mark.parametrize("pickled", [b"\x80\x02t.", b"\x80\x02}u."])
def test_a_pickle_whose_mark_is_gone_is_damaged(tmp_path, pickled):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    with pytest.raises(ValueError, match="x.pt is damaged or not a plain state dict"):
        read_state_dict(tmp_path / "x.pt")
