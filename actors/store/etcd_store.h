// A cluster's shared store, as its leader uses it: the record as JSON in one key of etcd. One
// thread, the coordinator's.
#pragma once

#include <memory>

#include "actors/store/fenced_key.h"
#include "actors/store/state_store.h"

namespace chainpump::actors {

/// read() and write() of what it makes wait as long as the term lasts, if they must; cancelled: it
/// is over, and this coordinator may do nothing any more.
std::unique_ptr<StateStore> make_etcd_store(std::unique_ptr<EtcdClient> client, Fence fence);

}  // namespace chainpump::actors
