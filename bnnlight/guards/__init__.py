"""Lightning callbacks that keep a long run whole: saved, stopped in order, watched. All of them are on by default.

- `LastCheckpoint` saves the run so that it goes on from any moment, bit for bit, and ends it after a step when it is
  told to stop. `first_callback.py` tells it of each hook before any other callback hears of it; `moment.py` is what a
  checkpoint holds of a moment. `lightning_internals.py` is how Lightning takes a run up from one, and
  `lightning_figures.py` what it has logged: adapters for what is private to Lightning. `run_state.py`,
  `callback_states.py` and `stop_signals.py` are its parts.
- `NonFinite` ends a run, or skips a step, whose loss or gradient is not finite, before the weights are touched, and
  logs `train/skipped_batches`. `bad_step.py` and `first_non_finite.py` find where that comes from, `kept_state.py`
  takes the forward pass back. `metric_copies.py` is what it shares with `run_state.py`.
- `Heartbeat` ends the other processes of a run soon after one has died. `lifeline.py` is the connection, made by
  `meeting_place.py`; `bnnlight.console.lost_connection` knows torch's own words for it.

Add your own: keep in `state_dict` what must survive a stop. A run goes on between two steps, two epochs, or before a
validation, and each hook from there on runs once.

Nothing is imported here: the connection is wanted where torch is not.
"""
