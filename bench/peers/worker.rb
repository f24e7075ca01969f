# Sidekiq: `sidekiq -r ./worker.rb -c 10`
require "sidekiq"

url = { url: ENV.fetch("BENCH_REDIS") }
Sidekiq.configure_server { |config| config.redis = url }

class Noop
  include Sidekiq::Worker

  def perform(_body); end
end
