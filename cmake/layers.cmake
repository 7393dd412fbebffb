# Which folder of src/ may call which: the one table of the layering.
#
# CMake links each archive with what its row names (so a wrong-way call is a link
# error in its unit tests), and tools/layers.bash checks every #include against
# the same rows.  Lower folders first.  One row a line: both readers rely on it.
#
#         folder   may include
mcp_layer(base)
mcp_layer(model    base)
mcp_layer(guard    base)
mcp_layer(engine   model base)
mcp_layer(plan     base)
mcp_layer(wire     guard base)
mcp_layer(net      wire guard base)
mcp_layer(pipe     plan guard base)
mcp_layer(worker   pipe net wire engine guard model base)
mcp_layer(agent    pipe net wire engine plan guard model base)
mcp_layer(api      agent worker pipe net wire plan engine guard model base)

# Above the public C ABI: these see include/mcp, their own folder and what the row adds.
#         folder   may also include
mcp_above(gateway)
mcp_above(cli      gateway)

# Third-party libraries of each folder (targets).  Headers reach that folder only.
mcp_uses(base   OpenSSL::Crypto)
mcp_uses(guard  OpenSSL::Crypto mcp::jansson)
mcp_uses(wire   PkgConfig::libnghttp2 PkgConfig::libprotobuf-c PkgConfig::libzstd ${SNAPPY})
mcp_uses(net    OpenSSL::SSL OpenSSL::Crypto PkgConfig::libuv)
mcp_uses(model  mcp::llama)
mcp_uses(engine mcp::llama)
mcp_uses(worker mcp::llama)
mcp_uses(agent  mcp::llama mcp::jansson)
mcp_uses(api    mcp::llama)
mcp_uses(gateway PkgConfig::libmicrohttpd)
mcp_uses(cli    mcp::jansson)
