"use strict";
/* A camera of an episode: a stretch of a video, or single pictures. */

const PICTURES_AHEAD = 24;
const PICTURES_KEPT = 160;

class VideoStream {
  /** `wanted()` is the time to show, in seconds into the episode; nothing after `margin` before its end is shown. */
  constructor(entry, wanted, margin) {
    this.from = entry.from;
    this.last = entry.to - margin;
    this.wanted = wanted;
    this.works = true;
    const video = this.element = make("video");
    video.muted = true;
    video.playsInline = true;
    video.preload = "auto";
    video.disableRemotePlayback = true;
    video.src = entry.src;
    video.addEventListener("error", () => {
      this.works = false;
      video.replaceWith(make("div", "none", "this video cannot be played here"));
    });
    video.addEventListener("loadedmetadata", () => this.show());
  }

  /** Show the middle of the wanted frame, so that rounding never shows a neighbour. */
  show() {
    if (this.works) this.element.currentTime = Math.min(this.from + this.wanted(), this.last);
  }

  seconds() {
    return this.element.currentTime - this.from;
  }

  play(speed) {
    this.element.playbackRate = speed;
    if (this.works) this.element.play().catch(() => {});
  }

  catchUp(seconds) {
    if (this.works && Math.abs(this.seconds() - seconds) > DRIFT_S && !this.element.seeking) {
      this.element.currentTime = this.from + seconds;
    }
  }

  close() {
    this.works = false;
    this.element.removeAttribute("src");
    this.element.load();
  }
}

class PictureStream {
  /** `wanted()` is the frame to show. The pictures after it are loaded ahead. */
  constructor(entry, wanted) {
    this.entry = entry;
    this.wanted = wanted;
    this.loaded = new Map();
    this.element = make("canvas");
    this.pen = this.element.getContext("2d");
  }

  show() {
    const frame = this.wanted();
    this.draw(frame);
    for (let next = frame + 1; next <= Math.min(frame + PICTURES_AHEAD, this.entry.count - 1); next++) this.picture(next);
  }

  picture(frame) {
    let picture = this.loaded.get(frame);
    if (!picture) {
      picture = new Image();
      picture.addEventListener("load", () => { if (frame === this.wanted()) this.draw(frame); });
      picture.addEventListener("error", () => this.fail(frame));
      picture.src = `${this.entry.folder}${frame}.${this.entry.ending}`;
      this.loaded.set(frame, picture);
      if (this.loaded.size > PICTURES_KEPT) this.loaded.delete(this.loaded.keys().next().value);
    }
    return picture;
  }

  draw(frame) {
    const picture = this.picture(frame);
    if (!picture.complete || !picture.naturalWidth) return;
    this.element.width = picture.naturalWidth;
    this.element.height = picture.naturalHeight;
    this.pen.drawImage(picture, 0, 0);
    this.element.dataset.frame = frame;
  }

  fail(frame) {
    if (frame !== this.wanted()) return;
    this.element.width = 320;
    this.element.height = 240;
    this.pen.fillStyle = "#c8c6c0";
    this.pen.font = "16px system-ui, sans-serif";
    this.pen.textAlign = "center";
    this.pen.fillText(`picture ${frame} cannot be shown`, 160, 120);
    this.element.dataset.frame = "";
  }
}
