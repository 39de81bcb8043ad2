from pathlib import Path

from tests.ranks import run_ranks

CHECKS = Path(__file__).with_name("check_changes.py")


def test_each_setting_changed_for_a_resume_is_in_effect_or_refused(tmp_path: Path) -> None:
    done = run_ranks(CHECKS, 1, tmp_path, launcher="python", timeout_s=500)
    assert done.returncode == 0, done.stdout
    assert "every setting has been changed; a refused one ended with 2" in done.stdout, done.stdout
    assert "error: resume: learning.decay_bn was true" in done.stdout, done.stdout
