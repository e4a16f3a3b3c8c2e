#include "transport/rpc/service_file.h"

#include <capnp/serialize.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>

#include "base/unique_fd.h"
#include "transport/rpc/convert.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/message_stream.h"

namespace chainpump::transport::rpc {

void write(schema::ServiceSpec::Builder out, const ServiceSpec& in) {
  write(out.initPlan(), in.plan);
  out.setIsa(in.isa.c_str());
  out.setSpinBetweenOps(in.spin_between_ops);
  out.setCacheFolder(in.cache_folder.c_str());
  out.setCertificates(text(in.certificates));
  out.setNode(text(in.node));
  auto store = out.initStore();
  store.setAddress(text(in.store.address));
  store.setPrefix(text(in.store.prefix));
  store.setAuthority(text(in.store.authority));
  store.setCertificate(text(in.store.certificate));
  store.setKey(text(in.store.key));
  out.setGraph(text(in.graph));
  out.setGraphText(text(in.graph_text));
  out.setNumber(in.number);
  write(out.initWeights(), in.weights);
}

void read(schema::ServiceSpec::Reader in, ServiceSpec& out) {
  read(in.getPlan(), out.plan);
  out.isa = in.getIsa();
  out.spin_between_ops = in.getSpinBetweenOps();
  out.cache_folder = in.getCacheFolder();
  out.certificates = text(in.getCertificates());
  out.node = text(in.getNode());
  const auto store = in.getStore();
  out.store.address = text(store.getAddress());
  out.store.prefix = text(store.getPrefix());
  out.store.authority = text(store.getAuthority());
  out.store.certificate = text(store.getCertificate());
  out.store.key = text(store.getKey());
  out.graph = text(in.getGraph());
  out.graph_text = text(in.getGraphText());
  out.number = in.getNumber();
  read(in.getWeights(), out.weights);
}

namespace {

/// Replaced as a whole.
Status write_message(const std::string& path, capnp::MessageBuilder& message) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  const std::string unfinished = path + ".new";
  const auto failed = [&] {
    return make_error(ErrorCode::no_room, "{}: cannot be written: {}", path, std::strerror(errno));
  };
  const UniqueFd file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return failed();
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = ::write(file.get(), bytes.begin() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed();
    written += static_cast<size_t>(n);
  }
  if (std::rename(unfinished.c_str(), path.c_str()) != 0) return failed();
  return ok_status();
}

/// `what` it should be: "a service's plan".
Status take_message(const kj::Array<capnp::word>& words, const std::string& where, const char* what,
                    const std::function<void(capnp::MessageReader&)>& take) {
  const auto exception = kj::runCatchingExceptions([&] {
    capnp::FlatArrayMessageReader message(words);
    take(message);
  });
  KJ_IF_MAYBE (e, exception)
    return make_error(ErrorCode::bad_file, "{}: not {}: {}", where, what, to_error(*e).message);
  return ok_status();
}

Status read_message(const std::string& path, const char* what,
                    const std::function<void(capnp::MessageReader&)>& take) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat found {};
  if (!file.valid() || ::fstat(file.get(), &found) != 0)
    return make_error(ErrorCode::not_found, "{}: {}", path, std::strerror(errno));
  const auto num_words = static_cast<uint64_t>(found.st_size) / sizeof(capnp::word);
  if (!S_ISREG(found.st_mode) || num_words > kMessageWordsMax)
    return make_error(ErrorCode::bad_file, "{}: not {}", path, what);
  auto words = kj::heapArray<capnp::word>(num_words);
  auto bytes = words.asBytes();
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = ::read(file.get(), bytes.begin() + got, bytes.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return make_error(ErrorCode::bad_file, "{}: cut short", path);
    got += static_cast<size_t>(n);
  }
  return take_message(words, path, what, take);
}

constexpr const char* kPlanFile = "a service's plan";

}  // namespace

Status write_service_file(const std::string& path, const ServiceSpec& spec) {
  capnp::MallocMessageBuilder message;
  write(message.initRoot<schema::ServiceSpec>(), spec);
  return write_message(path, message);
}

Result<ServiceSpec> read_service_file(const std::string& path) {
  ServiceSpec spec;
  RETURN_IF_ERROR(read_message(path, kPlanFile, [&](capnp::MessageReader& message) {
    read(message.getRoot<schema::ServiceSpec>(), spec);
  }));
  return spec;
}

std::string to_bytes(const ServiceSpec& spec) {
  capnp::MallocMessageBuilder message;
  write(message.initRoot<schema::ServiceSpec>(), spec);
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  return std::string(bytes.asChars().begin(), bytes.size());
}

Result<ServiceSpec> service_from_bytes(const std::string& bytes, const std::string& where) {
  const size_t num_words = bytes.size() / sizeof(capnp::word);
  if (num_words > kMessageWordsMax)
    return make_error(ErrorCode::bad_file, "{}: not {}", where, kPlanFile);
  auto words = kj::heapArray<capnp::word>(num_words);
  std::memcpy(words.begin(), bytes.data(), num_words * sizeof(capnp::word));
  ServiceSpec spec;
  RETURN_IF_ERROR(take_message(words, where, kPlanFile, [&](capnp::MessageReader& message) {
    read(message.getRoot<schema::ServiceSpec>(), spec);
  }));
  return spec;
}

Status write_nodes_file(const std::string& path, const std::vector<NodeInfo>& nodes) {
  capnp::MallocMessageBuilder message;
  write_list(message.initRoot<schema::NodeList>().initNodes(num(nodes)), nodes);
  return write_message(path, message);
}

Result<std::vector<NodeInfo>> read_nodes_file(const std::string& path) {
  std::vector<NodeInfo> nodes;
  RETURN_IF_ERROR(read_message(path, "a list of nodes", [&](capnp::MessageReader& message) {
    read_list(message.getRoot<schema::NodeList>().getNodes(), nodes);
  }));
  return nodes;
}

}  // namespace chainpump::transport::rpc
