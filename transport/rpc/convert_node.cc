// What a node says of itself.
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {
namespace {

void write_doubles(capnp::List<double>::Builder out, const std::vector<double>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) out.set(i, in[i]);
}

}  // namespace

void write(schema::NodeInfo::Builder out, const NodeInfo& in) {
  out.setName(text(in.name));
  write_texts(out.initLabels(num(in.labels)), in.labels);
  out.setAgent(text(in.agent));
  out.setDataAddress(text(in.data_address));
  write_ints(out.initCores(num(in.cores)), in.cores);
  out.setMemoryBytes(in.memory_bytes);
  write_doubles(out.initReadBytesPerS(num(in.read_bytes_per_s)), in.read_bytes_per_s);
  out.setInt8OpsPerS(in.int8_ops_per_s);
  out.setF32OpsPerS(in.f32_ops_per_s);
  out.setBf16OpsPerS(in.bf16_ops_per_s);
  out.setWeights(text(in.weights));
}

void read(schema::NodeInfo::Reader in, NodeInfo& out) {
  out.name = text(in.getName());
  out.labels = read_texts(in.getLabels());
  out.agent = text(in.getAgent());
  out.data_address = text(in.getDataAddress());
  out.cores = read_ints(in.getCores());
  out.memory_bytes = in.getMemoryBytes();
  out.read_bytes_per_s.clear();
  for (const double rate : in.getReadBytesPerS()) out.read_bytes_per_s.push_back(rate);
  out.int8_ops_per_s = in.getInt8OpsPerS();
  out.f32_ops_per_s = in.getF32OpsPerS();
  out.bf16_ops_per_s = in.getBf16OpsPerS();
  out.weights = text(in.getWeights());
}

}  // namespace chainpump::transport::rpc
