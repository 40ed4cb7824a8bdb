import { type Agent, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { IoptPages } from '../ioas/iopt-pages.ts';
import type { Process } from '../process.ts';
import { IoasObject } from './hwpt-object.ts';
import { IommuOption, IommuOptionOp } from './ioctl-flags.ts';
import type { OptionReply, OptionRequest } from './ioctl-request.ts';
import type { IommufdContext } from './iommufd-context.ts';

/** IOMMU_OPTION. @throws IommufdError EOPNOTSUPP, EPERM, EBUSY, EINVAL, ENOENT, EADDRINUSE */
export function* option(
  context: IommufdContext,
  agent: Agent,
  request: OptionRequest,
  process: Process,
): Task<OptionReply> {
  const { optionId } = request;
  yield agent.spends('option', Cost.lock);
  if (optionId === IommuOption.RLIMIT_MODE) return rlimitMode(context, request, process);
  if (optionId === IommuOption.HUGE_PAGES) return yield* hugePages(context, agent, request);
  throw new IommufdError('EOPNOTSUPP', `option_id: ${optionId} is not one of 0, 1`);
}

function rlimitMode(context: IommufdContext, { op, objectId, val64 }: OptionRequest, process: Process): OptionReply {
  if (objectId !== 0) throw new IommufdError('EOPNOTSUPP', `object_id: ${objectId} is not 0`);
  if (op === IommuOptionOp.GET) return { val64: context.countsByMm ? 1n : 0n };
  if (op !== IommuOptionOp.SET) throw unknownOp(op);
  if (!process.capabilities.has('CAP_SYS_RESOURCE')) throw new IommufdError('EPERM', 'op: SET needs CAP_SYS_RESOURCE');
  if (!context.table.isEmpty) throw new IommufdError('EBUSY', 'op: SET with objects');
  if (val64 > 1n) throw new IommufdError('EINVAL', `val64: ${val64} is not 0 or 1`);
  context.countsByMm = val64 === 1n;
  return { val64 };
}

function* hugePages(context: IommufdContext, agent: Agent, request: OptionRequest): Task<OptionReply> {
  const { op, objectId, val64 } = request;
  const object = context.get(objectId, 'IOAS');
  try {
    const { iopt } = object.ioas;
    if (op === IommuOptionOp.GET) return { val64: iopt.largePages ? 1n : 0n };
    if (op !== IommuOptionOp.SET) throw unknownOp(op);
    if (val64 > 1n) throw new IommufdError('EINVAL', `val64: ${val64} is not 0 or 1`);
    yield* iopt.setLargePages(agent, val64 === 1n);
    return { val64 };
  } finally {
    context.table.put(object);
  }
}

const unknownOp = (op: number): IommufdError => new IommufdError('EOPNOTSUPP', `op: ${op} is not one of 0, 1`);

/**
 * IOMMU_IOAS_CHANGE_PROCESS: has another process pay for all pins of all IOASes, which map files only.
 * @throws IommufdError EINVAL (an area of a process's memory), ENOMEM, with nothing changed
 */
export function* changeProcess(context: IommufdContext, agent: Agent, process: Process): Task<void> {
  const memories = new Set<IoptPages>();
  for (const object of context.table.objects()) {
    if (!(object instanceof IoasObject)) continue;
    yield* object.ioas.iopt.read(agent, () => {
      for (const { memory } of object.ioas.areas.areas()) {
        if (memory.file === null) throw new IommufdError('EINVAL', 'an area maps a process, not a file');
        memories.add(memory);
      }
    });
  }
  const changed: { readonly memory: IoptPages; readonly from: Process }[] = [];
  try {
    for (const memory of memories) {
      const from = memory.process;
      memory.changeProcess(process);
      changed.push({ memory, from });
    }
  } catch (error) {
    for (const { memory, from } of changed) memory.changeProcess(from);
    throw error;
  }
}
