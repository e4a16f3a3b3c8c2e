#include "transport/ucx/ucx_context.h"

#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include <csignal>
#include <cstdlib>

#include "transport/ucx/ucx_error.h"
#include "transport/ucx/unnamed_memory.h"

namespace chainpump::transport {
namespace {

// Segments of 256 KiB: an activation of one decode step or a small prefill chunk is one message of
// one segment, and large ones move with few system calls (1 MiB over loopback: 5.6 GB/s in place of
// 4.4 with UCX's default of 8 KiB).
constexpr size_t kTcpSegmentBytes = 256 * 1024;
constexpr size_t kTcpSegmentOverhead = 1024;  // UCX's own headers and ours
constexpr size_t kSharedMemoryEagerBytes =
    12288;  // beyond it one copy by cma beats two through the FIFO

// What UCX settled when it was loaded, before main(). It warns of every request that a dead peer
// left behind, which is no news to us; and a crash is ours to report, not its handlers'.
void set_library() {
  if (getenv("UCX_LOG_LEVEL") == nullptr) ucs_global_opts_set_value("LOG_LEVEL", "error");
  for (const int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE}) ucs_debug_disable_signal(signal);
}

}  // namespace

std::string_view to_string(TransportKind kind) {
  switch (kind) {
    case TransportKind::tcp:
      return "tcp";
    case TransportKind::shared_memory:
      return "shared_memory";
  }
  return "unknown";
}

Result<std::shared_ptr<UcxContext>> UcxContext::create(const UcxContextOptions& options) {
  // What UCX reads from the environment only. A value that the operator set stays.
  for (const auto& [name, value] : environment(options.kind)) {
    setenv(name.c_str(), value.c_str(), 0);
  }
  if (options.kind == TransportKind::shared_memory) RETURN_IF_ERROR(use_unnamed_memory());
  set_library();

  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return ucx_error("ucp_config_read", status);
  const char* transports = options.kind == TransportKind::tcp ? "tcp" : "posix,cma,tcp";
  for (const auto& [key, value] :
       {std::pair("TLS", transports), std::pair("NET_DEVICES", options.net_devices.c_str()),
        std::pair("SOCKADDR_TLS_PRIORITY", "tcp")}) {
    if (status == UCS_OK) status = ucp_config_modify(config, key, value);
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 1;
  ucp_context_h handle = nullptr;
  if (status == UCS_OK) status = ucp_init(&params, config, &handle);
  ucp_config_release(config);
  if (status != UCS_OK) {
    return make_error(ErrorCode::internal, "UCX cannot start with transports {} on {}: {}",
                      transports, options.net_devices, ucs_status_string(status));
  }
  return std::shared_ptr<UcxContext>(new UcxContext(handle, options.kind));
}

std::vector<std::pair<std::string, std::string>> UcxContext::environment(TransportKind kind) {
  std::vector<std::pair<std::string, std::string>> result = {{"UCX_TCP_PUT_ENABLE", "n"},
                                                             {"UCX_TCP_CM_REUSEADDR", "y"},
                                                             {"UCX_TCP_TX_SEG_SIZE", "256K"},
                                                             {"UCX_TCP_RX_SEG_SIZE", "512K"}};
  if (kind == TransportKind::shared_memory) result.emplace_back("UCX_POSIX_SEG_SIZE", "16K");
  return result;
}

UcxContext::~UcxContext() { ucp_cleanup(handle_); }

size_t UcxContext::eager_bytes_max() const {
  return kind_ == TransportKind::tcp ? kTcpSegmentBytes - kTcpSegmentOverhead
                                     : kSharedMemoryEagerBytes;
}

std::string UcxContext::library_version() { return ucp_get_version_string(); }

}  // namespace chainpump::transport
