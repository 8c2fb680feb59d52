"use strict";
/* Plays an episode: the first video that works leads, the others and the cursor follow. */

const DRIFT_S = 0.08;

class Player {
  /** `moved(frame)` is called whenever another frame is shown, `changed(playing)` when playing begins or ends. */
  constructor(container, moved, changed) {
    this.container = container;
    this.moved = moved;
    this.changed = changed;
    this.speed = 1;
    this.playing = false;
    this.streams = [];
    this.frames = 1;
    this.fps = 30;
    this.frame = 0;
  }

  load(episode, fps) {
    this.pause();
    for (const stream of this.streams) {
      stream.video.removeAttribute("src");
      stream.video.load();
    }
    this.frames = episode.frames;
    this.fps = fps;
    this.streams = [];
    this.container.replaceChildren(...episode.videos.map((entry) => this.figure(entry)));
    this.seek(0);
  }

  figure(entry) {
    const figure = make("figure");
    if (entry.problem) {
      figure.append(make("div", "none", entry.problem), make("figcaption", "", entry.camera));
      return figure;
    }
    const video = make("video");
    video.muted = true;
    video.playsInline = true;
    video.preload = "auto";
    video.disableRemotePlayback = true;
    video.src = entry.src;
    const stream = { video, from: entry.from, to: entry.to, works: true };
    video.addEventListener("error", () => {
      stream.works = false;
      video.replaceWith(make("div", "none", "this video cannot be played here"));
    });
    video.addEventListener("loadedmetadata", () => this.place(stream));
    this.streams.push(stream);
    figure.append(video, make("figcaption", "", entry.camera));
    return figure;
  }

  /** Show the current frame: its middle, so that rounding never shows a neighbour. */
  place(stream) {
    const wanted = stream.from + (this.frame + 0.5) / this.fps;
    stream.video.currentTime = Math.min(wanted, stream.to - 0.25 / this.fps);
  }

  seek(frame) {
    this.frame = Math.min(this.frames - 1, Math.max(0, frame));
    for (const stream of this.streams) if (stream.works) this.place(stream);
    this.began = { time: performance.now(), frame: this.frame };
    this.moved(this.frame);
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const stream of this.streams) stream.video.playbackRate = speed;
    this.began = { time: performance.now(), frame: this.frame };
  }

  toggle() {
    if (this.playing) this.pause(); else this.play();
  }

  play() {
    if (this.frame >= this.frames - 1) this.seek(0);
    this.playing = true;
    this.began = { time: performance.now(), frame: this.frame };
    for (const stream of this.streams) {
      stream.video.playbackRate = this.speed;
      if (stream.works) stream.video.play().catch(() => {});
    }
    this.changed(true);
    requestAnimationFrame(() => this.follow());
  }

  pause() {
    this.playing = false;
    for (const stream of this.streams) stream.video.pause();
    this.changed(false);
  }

  /** Seconds into the episode: the leading video's, or a clock's where no video works. */
  now() {
    const lead = this.streams.find((stream) => stream.works);
    if (lead) return { lead, seconds: lead.video.currentTime - lead.from };
    const passed = (performance.now() - this.began.time) / 1000 * this.speed;
    return { lead: null, seconds: (this.began.frame + 0.5) / this.fps + passed };
  }

  follow() {
    if (!this.playing) return;
    const { lead, seconds } = this.now();
    const frame = Math.floor(seconds * this.fps + 1e-3);
    if (frame >= this.frames - 1 || (lead && lead.video.ended)) {
      this.pause();
      this.seek(this.frames - 1);
      return;
    }
    for (const stream of this.streams) {
      const drift = stream.video.currentTime - stream.from - seconds;
      if (stream !== lead && stream.works && Math.abs(drift) > DRIFT_S && !stream.video.seeking) {
        stream.video.currentTime = stream.from + seconds;
      }
    }
    if (frame !== this.frame && frame >= 0) {
      this.frame = frame;
      this.moved(frame);
    }
    requestAnimationFrame(() => this.follow());
  }
}
