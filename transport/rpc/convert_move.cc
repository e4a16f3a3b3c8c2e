#include "transport/rpc/convert.h"
#include "transport/rpc/fields.h"

namespace chainpump::transport::rpc {

static_assert(static_cast<int>(MoveStep::starting) == static_cast<int>(schema::MoveStep::STARTING));
static_assert(static_cast<int>(MoveStep::copying) == static_cast<int>(schema::MoveStep::COPYING));
static_assert(static_cast<int>(MoveStep::switching) ==
              static_cast<int>(schema::MoveStep::SWITCHING));

void write(schema::KvCopy::Builder out, const KvCopy& in) {
  out.setEpoch(in.epoch);
  out.setIncarnation(in.incarnation);
  out.setSecret(in.secret);
  out.setLayerBegin(in.layer_begin);
  out.setLayerEnd(in.layer_end);
  out.setAddress(text(in.address));
  out.setPort(in.port);
  auto lanes = out.initLanes(num(in.lanes));
  for (uint32_t i = 0; i < lanes.size(); ++i) lanes.set(i, in.lanes[i]);
  out.setPart(in.part);
  out.setParts(in.parts);
  out.setContextTokens(in.context_tokens);
}

void read(schema::KvCopy::Reader in, KvCopy& out) {
  out.epoch = in.getEpoch();
  out.incarnation = in.getIncarnation();
  out.secret = in.getSecret();
  out.layer_begin = in.getLayerBegin();
  out.layer_end = in.getLayerEnd();
  out.address = text(in.getAddress());
  out.port = in.getPort();
  out.lanes.clear();
  for (const uint8_t lane : in.getLanes()) out.lanes.push_back(lane);
  out.part = in.getPart();
  out.parts = in.getParts();
  out.context_tokens = in.getContextTokens();
}

void write(schema::MoveProgress::Builder out, const MoveProgress& in) {
  out.setStep(static_cast<schema::MoveStep>(in.step));
  out.setBytesDone(in.bytes_done);
  out.setBytesTotal(in.bytes_total);
}

void read(schema::MoveProgress::Reader in, MoveProgress& out) {
  out.step = checked(in.getStep(), MoveStep::switching);
  out.bytes_done = in.getBytesDone();
  out.bytes_total = in.getBytesTotal();
}

}  // namespace chainpump::transport::rpc
