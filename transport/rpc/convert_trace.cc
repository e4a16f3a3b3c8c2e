#include "transport/rpc/convert.h"
#include "transport/rpc/loop.h"

namespace chainpump::transport::rpc {

void write(schema::StepEvent::Builder out, const StepEvent& in) {
  out.setMicrobatch(in.microbatch.value);
  out.setNumTokens(in.num_tokens);
  out.setReceivedNs(in.received.since_epoch.count());
  out.setCreditFromNs(in.credit_from.since_epoch.count());
  out.setCreditUntilNs(in.credit_until.since_epoch.count());
  out.setComputeFromNs(in.compute_from.since_epoch.count());
  out.setComputeUntilNs(in.compute_until.since_epoch.count());
  out.setSentNs(in.sent.since_epoch.count());
}

void read(schema::StepEvent::Reader in, StepEvent& out) {
  const auto time = [](int64_t ns) { return TimePoint{Duration(ns)}; };
  out.microbatch = MicrobatchId(in.getMicrobatch());
  out.num_tokens = in.getNumTokens();
  out.received = time(in.getReceivedNs());
  out.credit_from = time(in.getCreditFromNs());
  out.credit_until = time(in.getCreditUntilNs());
  out.compute_from = time(in.getComputeFromNs());
  out.compute_until = time(in.getComputeUntilNs());
  out.sent = time(in.getSentNs());
}

void write(schema::StepEvents::Builder out, const StepEvents& in) {
  write_list(out.initEvents(static_cast<uint32_t>(in.events.size())), in.events);
  out.setNext(in.next);
  out.setLost(in.lost);
  out.setNowNs(in.now.since_epoch.count());
}

void read(schema::StepEvents::Reader in, StepEvents& out) {
  if (in.getEvents().size() > StepTrace::kMaxEvents)
    kj::throwFatalException(to_exception(
        make_error(ErrorCode::internal, "a trace of {} events", in.getEvents().size())));
  read_list(in.getEvents(), out.events);
  out.next = in.getNext();
  out.lost = in.getLost();
  out.now = {Duration(in.getNowNs())};
}

}  // namespace chainpump::transport::rpc
