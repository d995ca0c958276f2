"""What a user asks, with what it shows -> rendered samples, as training renders stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mixtures.tokens.frame_view import ClipView
from shards.profile import Profile
from train.data.asked.chat_messages import Talk
from train.data.asked.prompts import Prompt
from train.data.collate import RenderedSample
from train.data.frame_relevance import wants_scores
from train.data.jpeg_patches import Frames, open_jpegs
from train.data.render import Rules, render, render_prompt
from train.data.user_media import Seen, UserMedium, see

Scorer = Callable[[Sequence[bytes], str], Sequence[int]]
"""JPEGs and a question -> how well each frame fits it, such as train.data.frame_relevance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSamples:
    """Renders under these rules; `relevance` scores frames where the rules select by "query"."""

    rules: Rules
    profile: Profile
    relevance: Scorer | None

    def talk(self, key: str, talk: Talk, *, answer: bool, unfinished: bool) -> RenderedSample:
        """A conversation; it ends where a reply begins, or where its last turn would end."""
        # the turn that shows a medium is what its frames are scored against
        texts = {medium: turn.text for turn in talk.turns for medium, _ in turn.media}
        made = partial(render, key, talk.turns, answer=answer, unfinished=unfinished)
        return self._over(key, talk.media, texts, made, talk.scores)

    def prompt(self, key: str, prompt: Prompt) -> RenderedSample:
        """A text that is in the template already."""
        texts = dict.fromkeys(range(len(prompt.media)), prompt.text)
        return self._over(key, prompt.media, texts, partial(render_prompt, key, prompt.text), {})

    def _over(
        self,
        key: str,
        shown_media: Sequence[UserMedium],
        texts: Mapping[int, str],
        made: Callable[..., RenderedSample],
        own_scores: Mapping[int, Sequence[int]],
    ) -> RenderedSample:
        """What `made` renders over these media; ValueError names it by `key`."""
        # scores that the user gives win over those of a model
        seen = [see(medium, self.profile) for medium in shown_media]
        scores = {**self._scores(seen, texts), **own_scores}
        clips = [medium_seen.clip for medium_seen in seen]

        def opened(number: int, clip_view: ClipView, used: Sequence[int]) -> Frames:
            """The frames of a medium, decoded at the size that its view asks for."""
            return open_jpegs(seen[number].jpegs, clip_view, used, clips[number])

        try:
            return made(clips=clips, open_frames=opened, rules=self.rules, scores=scores)
        # the text layer knows what does not fit, and only here which conversation it was
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error

    def _scores(self, seen: Sequence[Seen], texts: Mapping[int, str]) -> dict[int, Sequence[int]]:
        if self.relevance is None:
            return {}
        return {
            number: self.relevance(medium_seen.jpegs, texts[number])
            for number, medium_seen in enumerate(seen)
            if wants_scores(medium_seen.clip, self.rules.view)
        }
