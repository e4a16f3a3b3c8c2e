#include "graph/link_watch.h"

namespace chainpump::graph {

void LinkWatch::on_spoken(Direction& direction, uint64_t spoken, TimePoint now) {
  direction.spoken = spoken;
  if (direction.behind_since || spoken <= direction.heard) return;
  direction.behind_since = now;
  direction.wanted = spoken;
}

std::optional<LinkWatch::Silent> LinkWatch::on_heard(Direction& direction, uint64_t heard,
                                                     TimePoint looked, TimePoint now) const {
  const bool comes = heard > direction.heard;
  direction.heard = heard;
  if (!direction.behind_since) return std::nullopt;
  if (comes || heard >= direction.wanted) {
    // Each message has the same time to come, from the one before it on.
    direction.behind_since.reset();
    on_spoken(direction, direction.spoken, now);
    return std::nullopt;
  }
  if (looked < *direction.behind_since + silent_max_) return std::nullopt;
  const Silent silent{
      .link = {}, .missing = direction.spoken - heard, .silent_for = now - *direction.behind_since};
  direction.behind_since = now;
  return silent;
}

std::vector<LinkWatch::Silent> LinkWatch::on_answer(const std::vector<LinkEnd>& ends,
                                                    TimePoint now) {
  std::vector<Silent> out;
  for (const LinkEnd& end : ends) {
    Link& link = links_[end.link];
    if (end.incarnation < link.incarnation) continue;  // of one that its rank has not heard of yet
    if (link.incarnation < end.incarnation) link = Link{.incarnation = end.incarnation};
    on_spoken(end.is_sender ? link.frames : link.credits, end.spoken, now);
    std::optional<Silent> silent =
        on_heard(end.is_sender ? link.credits : link.frames, end.heard, end.looked, now);
    if (!silent) continue;
    silent->link = end.link;
    silent->frames = !end.is_sender;
    out.push_back(*silent);
  }
  return out;
}

}  // namespace chainpump::graph
