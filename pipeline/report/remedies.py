"""What a person can do about each refusal code, and a detail as it is printed beside one.

Shown in the report and in docs/refusal_codes.md; shards.outcome.CODES says what a code means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Remedy(NamedTuple):
    """What to do, and an example of a refusal's detail."""

    do: str
    example: str


_ROW = "mend the row at its publisher or in your copy"
_BOUND = "nothing, if the bound is right; the bounds stand in docs/media.md"
_AGAIN = "check the address by hand; build into a new pool to try it again"
_COPY = "copy or download the file again"
_CONVERT = "convert the file with ffmpeg"
_RECIPE = "nothing, if the recipe means it"

REMEDIES: Mapping[str, Remedy] = {
    "ROW_NOT_JSON": Remedy(
        "look at that line: is the file in the format that the recipe names?",
        "Expecting ',' delimiter at line 12, 1043",
    ),
    "ROW_NOT_UTF8": Remedy(
        "write the file as UTF-8, for example with iconv", "line 1, byte 1 is not UTF-8"
    ),
    "ROW_TOO_LONG": Remedy("split the record, or leave it out", "more than 4000000 bytes"),
    "ROW_TOO_DEEP": Remedy(_ROW, "nested beyond the interpreter's bound"),
    "ROW_EMPTY": Remedy("nothing: a blank line says nothing", "a blank line"),
    "ROW_NOT_FINITE": Remedy("write null or a number", "score holds NaN or an infinite number"),
    "ROW_DUPLICATE_KEY": Remedy(
        "name the key once", "a key repeats among conversations, id, image"
    ),
    "ROW_NOT_OBJECT": Remedy(
        "a row must be an object: is the file in the format that the recipe names?", "is a list"
    ),
    "ROW_MISSING_FIELD": Remedy(
        "compare the row's keys with those that the format reads: docs/sources.md",
        "no conversations",
    ),
    "ROW_WRONG_TYPE": Remedy(_ROW, "a media path is a int"),
    "ROW_EMPTY_ID": Remedy("give the row an id, or no id field at all", "the id is blank"),
    "ROW_BAD_ID": Remedy(_ROW, "the id holds control or direction characters"),
    "ROW_ID_CONFLICT": Remedy(
        "`ids_repeat: true` of the source numbers rows that share an id",
        "an earlier record differs; `ids_repeat: true` numbers them",
    ),
    "ROW_DUPLICATE": Remedy("nothing: one of the two is kept", "says what astronaut-caption says"),
    "ROW_PREFERENCE": Remedy(
        "choose the good answers yourself: preference data are no instruction data",
        "holds rejected_response",
    ),
    "ROW_FIELD_UNREAD": Remedy(
        "take the field out if nothing hangs on it; `unread_fields: refuse` refuses every field",
        "holds tools",
    ),
    "ROW_BAD_ANSWER": Remedy(_ROW, "answer '7', 5 options"),
    "TEXT_NUL": Remedy(_ROW, "turn 1 holds a NUL"),
    "TEXT_SURROGATE": Remedy(
        "write the text as UTF-8, with whole escapes", "turn 1 holds half a surrogate pair"
    ),
    "TEXT_TOO_LONG": Remedy(
        "split the conversation", "turn 1 has 200001 characters, at most 200000"
    ),
    "TEXT_SPECIAL_TOKEN": Remedy(
        "if it stands for a medium, give the row its media field; else take it out",
        "turn 0 spells <video>",
    ),
    "TURNS_EMPTY": Remedy(_ROW, "no turn"),
    "TURNS_NO_ANSWER": Remedy(
        "end the conversation with an answer that has a loss", "the last turn is no answer"
    ),
    "TURNS_TOO_MANY": Remedy("split the conversation", "202 turns"),
    "TURNS_OUT_OF_ORDER": Remedy("let questions and answers alternate", "user user assistant"),
    "TURN_WRONG_SHAPE": Remedy(_ROW, "turn 2 is not {from, value}"),
    "TURN_EMPTY": Remedy(_ROW, "turn 1 says nothing"),
    "TURN_WEIGHT": Remedy("weigh answers alone, with 0 or 1", "turn 1 has weight 0.5, not 0 or 1"),
    "SPAN_INVALID": Remedy(_ROW, "3000000..1000000 microseconds of a video"),
    "SPAN_WRONG_TYPE": Remedy(_ROW, "start and end must be numbers of seconds"),
    "SPAN_OUTSIDE": Remedy(
        "is it the whole video, and are the spans seconds of it?", "12 s to 15 s of 9.8 s"
    ),
    "MEDIA_PATH_REFUSED": Remedy(
        "name media relative to the source's `media`; addresses need `format: image_urls`",
        "'../../x.jpg' may leave the media folder",
    ),
    "MEDIA_PLACEHOLDER_COUNT": Remedy(
        "put one <image> or <video> into the text for each medium", "places 2, 1 media"
    ),
    "MEDIA_MISSING": Remedy(
        "is `media` the folder that the names start from? near names are in the detail",
        "no file 1284.jpg",
    ),
    "MEDIA_LINK_ONLY": Remedy(
        "get the videos from where the publisher links to, and put them into `media`",
        "no file v_abc.mp4",
    ),
    "MEDIA_AMBIGUOUS": Remedy(
        "name the folder too, so that one medium answers", "0.jpg stands for different media"
    ),
    "MEDIA_NOT_A_FILE": Remedy(
        "put the file there: links may only lead within the source's folders",
        "a.jpg is a pipe, a device, or a link that leads elsewhere",
    ),
    "MEDIA_EMPTY": Remedy(_COPY, "the embedded media holds no bytes"),
    "MEDIA_TOO_BIG": Remedy(_BOUND, "6000000000 bytes, at most 5368709120"),
    "MEDIA_LFS_POINTER": Remedy(
        "run `git lfs pull` in the copy of the dataset",
        "pointer.jpg is a git-lfs pointer; fetch the object",
    ),
    "MEDIA_UNREADABLE": Remedy(
        "open it yourself: is it what its name says?", "starts with b'<!DOCTYPE html>'"
    ),
    "MEDIA_UNDECODABLE": Remedy(_COPY, "the decoder ended without a word"),
    "MEDIA_DAMAGED": Remedy(_COPY, "the chunk at byte 1043 is not what its checksum says"),
    "MEDIA_TRUNCATED": Remedy(_COPY, "image file is truncated (57 bytes not processed)"),
    "MEDIA_SHORT": Remedy(_COPY, "2.1 s came out of 10 s"),
    "MEDIA_LONG": Remedy(_CONVERT, "36 s came out of 10 s"),
    "MEDIA_FORMAT_REFUSED": Remedy(
        "convert the file with ffmpeg, to MP4, WebM, JPEG or PNG for example",
        "the container is not on the list",
    ),
    "MEDIA_CODEC_REFUSED": Remedy(
        "convert the file with ffmpeg, to H.264 for example", "codec wmv3"
    ),
    "MEDIA_COLOUR_REFUSED": Remedy("convert the picture to RGB of 8 bits", "floating-point pixels"),
    "MEDIA_NO_VIDEO": Remedy("is it a sound file?", "1 streams, none of them a video"),
    "MEDIA_NO_KEYFRAME": Remedy(
        "cut the file at a key frame, or convert it with ffmpeg",
        "no key frame in the first 5 seconds",
    ),
    "MEDIA_SIZE_CHANGES": Remedy(
        "convert the file with ffmpeg, to one frame size",
        "size or pixel format changes within the stream",
    ),
    "MEDIA_BAD_DURATION": Remedy(
        "convert the file with ffmpeg, which writes a duration; the bound stands in docs/media.md",
        "no duration in the header, and none in the packets",
    ),
    "MEDIA_BAD_FPS": Remedy(_CONVERT, "1000 frames per second, at most 240"),
    "MEDIA_BAD_ASPECT": Remedy(_BOUND, "4000 x 12, at most 64:1"),
    "MEDIA_TOO_SMALL": Remedy(_BOUND, "6 x 6 pixels, each side at least 16"),
    "MEDIA_TOO_MANY_PIXELS": Remedy("scale it down", "30000 x 30000 pixels, at most 89478485"),
    "MEDIA_TOO_MANY_SCANS": Remedy("write the JPEG anew", "600 scans, at most 64"),
    "MEDIA_TOO_MANY_STREAMS": Remedy(_CONVERT, "64 streams, at most 32"),
    "MEDIA_TOO_SLOW": Remedy(_BOUND, "the time limit was reached"),
    "MEDIA_TOO_MUCH_MEMORY": Remedy(_BOUND, "more than the sandbox allows"),
    "MEDIA_ANIMATED": Remedy("convert it to a video", "12 frames"),
    "MEDIA_METADATA_BOMB": Remedy(
        "write the picture anew without metadata",
        "Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK",
    ),
    "MEDIA_KILLED_WORKER": Remedy(
        "look at the file with care; or have the workers too little memory?",
        "member:all.tar.gz#pictures/1.jpg",
    ),
    "FETCH_ADDRESS_REFUSED": Remedy(
        "nothing: addresses that are not public are never asked",
        "'127.0.0.1' is no public host name",
    ),
    "FETCH_TOO_MANY_HOPS": Remedy(_AGAIN, "https://media.example.org/a.jpg: more than 5 redirects"),
    "FETCH_NOT_MEDIA": Remedy(
        "the medium is gone, or its host wants a login",
        "https://media.example.org/page/: a web page came",
    ),
    "FETCH_TOO_BIG": Remedy(_BOUND, "https://media.example.org/a.mp4: 9000000000 bytes"),
    "FETCH_TOO_SLOW": Remedy(_AGAIN, "https://media.example.org/a.mp4: a drip"),
    "FETCH_SHORT": Remedy(_AGAIN, "https://media.example.org/a.mp4: 1200 of 48000 bytes"),
    "FETCH_CHANGED": Remedy(
        "the publisher has other bytes now: pin another revision, or drop the row",
        "another range came than was asked for",
    ),
    "FETCH_REFUSED": Remedy(
        "404: it is gone; 401 and 403: its host wants rights", "the server answers 404"
    ),
    "FETCH_UNREACHABLE": Remedy(_AGAIN, "media.example.org has no address"),
    "ARCHIVE_MEMBER_REFUSED": Remedy(
        "unpack the archive, and name the folder as `media`",
        "'pictures/1.jpg' in all.tar: a symbolic link",
    ),
    "ARCHIVE_TOO_BIG": Remedy("split the archive", "more than 900000 members"),
    "ARCHIVE_DAMAGED": Remedy(
        "download the archive again, all of its parts",
        "all.tar: ends 1244 bytes before the end of a member",
    ),
    "LICENCE_REFUSED": Remedy(_RECIPE, "the licence is CC-BY-NC-4.0"),
    "EXCLUDED": Remedy(_RECIPE, "a medium is excluded by its digest"),
    "FILTER_REFUSED": Remedy(_RECIPE, "the recipe wants width at least 64"),
    "DUPLICATE_SAMPLE": Remedy(
        "nothing: one of them is kept; `duplicates: keep` keeps all",
        "the same as 0bbeff29a58bfeb8dd5193274e2f541f of clips",
    ),
    "DUPLICATE_NEAR": Remedy(
        "`near_text` in the recipe says how near",
        "nearly the same as 0bbeff29a58bfeb8dd5193274e2f541f of clips",
    ),
    "CLIP_CAPPED": Remedy(
        "`max_samples_per_clip` in the recipe says how many",
        "2 other samples show clip 0bbeff29a58bfeb8dd5193274e2f541f",
    ),
    "LEAK_MEDIA": Remedy(
        "nothing: training on it would spoil the score",
        "clip 0bbeff29a58bfeb8dd5193274e2f541f matches 0: of real",
    ),
    "LEAK_TEXT": Remedy("nothing: training on it would spoil the score", "asks q12 of video_mme"),
    "SAMPLE_TOO_LONG": Remedy(
        "raise `pack_tokens`, or lower the cap of `frames`", "273 tokens, a pack holds 256"
    ),
}
